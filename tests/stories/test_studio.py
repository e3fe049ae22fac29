"""The studio as a command: killed, opened again, and used by a training."""

import json
import os
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from commands import command_environment
from studio_client import write_image
from ushape import io

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are ended by signals"),
]


class Server:
    """A running `ushape studio`."""

    def __init__(self, folder):
        command = ["studio", str(folder), "--no-browser", "--port", "0", "--quiet"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ushape", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=command_environment(),
        )
        line = self.process.stdout.readline()
        assert line.startswith("Studio: "), line + self.process.stdout.read()
        address, _, token = line.split()[1].partition("?token=")
        headers = {"X-Ushape-Studio": "1", "Authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=address, headers=headers, timeout=60)

    def get(self, path):
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path, body):
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_for_job(self):
        for _ in range(1200):
            state = self.get("/api/state")
            if state["job"]["state"] != "running":
                return state
            time.sleep(0.2)
        raise AssertionError(state["job"])

    def end(self, number):
        self.client.close()
        self.process.send_signal(number)
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def serve():
    """Function that starts a server; all are stopped at the end."""
    running = []

    def start(folder):
        running.append(Server(folder))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.end(signal.SIGINT)


def test_killed_server_loses_no_answered_edit(tmp_path, serve):
    write_image(tmp_path / "images" / "a.png", shape=(200, 200))
    revision = 0
    for round_number in range(3):
        server = serve(tmp_path)
        image_id = server.get("/api/images")[0]["id"]
        found = server.get(f"/api/images/{image_id}")
        assert found["revision"] == revision
        for number in range(5):
            place = [10 + 30 * number, 10 + 60 * round_number]
            body = {"revision": revision, "tool": "brush", "points": [place], "radius": 4}
            revision = server.post(f"/api/images/{image_id}/edit", body)["revision"]
        server.end(signal.SIGKILL)
    server = serve(tmp_path)
    for _ in range(100):
        if server.get("/api/state")["saved"]["pending"] == 0:
            break
        time.sleep(0.1)
    codes = io.read_mask(tmp_path / "masks" / "a.png").codes
    for round_number in range(3):
        for number in range(5):
            assert codes[10 + 60 * round_number, 10 + 30 * number] == 1
    server.end(signal.SIGINT)
    assert server.process.returncode == 130


def test_second_studio_of_a_folder_is_refused(tmp_path, serve):
    write_image(tmp_path / "images" / "a.png")
    serve(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "ushape", "studio", str(tmp_path), "--no-browser", "--port", "0"],
        capture_output=True,
        text=True,
        env=command_environment(),
        check=False,
    )
    assert ended.returncode == 2
    assert "is in use by" in ended.stderr


def test_training_on_one_image_survives_a_killed_server_and_predicts_the_others(
    tmp_path, serve, cells
):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    paths = [
        path
        for path in sorted((cells / "images").iterdir())
        if np.asarray(Image.open(cells / "masks" / path.name)).mean() > 25
    ][:3]
    for path in paths:
        (folder / "images" / path.name).write_bytes(path.read_bytes())
    truth = np.asarray(Image.open(cells / "masks" / paths[0].name)) > 0
    server = serve(folder)
    first = server.get("/api/images")[0]
    revision = 0
    for value in (0, 1):
        rows, columns = np.nonzero(truth == value)
        for place in range(0, len(rows), max(1, len(rows) // 40)):
            point = [int(columns[place]) + 0.5, int(rows[place]) + 0.5]
            body = {"revision": revision, "tool": "brush", "points": [point], "class": value}
            path = f"/api/images/{first['id']}/edit"
            revision = server.post(path, {**body, "radius": 1.5})["revision"]
    server.post("/api/train", {"minutes": 0.3})
    server.end(signal.SIGKILL)
    server = serve(folder)
    state = server.wait_for_job()
    assert state["job"]["state"] == "done", state["job"]["lines"]
    assert state["curves"]["loss"]
    server.post("/api/predict", {})
    assert server.wait_for_job()["job"]["state"] == "done"
    images = server.get("/api/images")
    assert all(one["has_prediction"] for one in images)
    nearest = server.get("/api/next")
    assert nearest["id"] in {one["id"] for one in images[1:]}
    answer = server.post(
        f"/api/images/{nearest['id']}/edit", {"revision": 0, "tool": "accept", "points": []}
    )
    assert answer["annotated"] == 1
    server.end(signal.SIGINT)
    assert len(list((folder / "masks").iterdir())) == 2
    job = json.loads((folder / ".ushape_studio" / "job.json").read_text())
    assert not _exists(job["process"])


def _exists(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
