"""A served model answers as the command does, survives hostile requests, and stops cleanly."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput

import hostile
from commands import command_environment
from ushape.serving.uploads import PREFIX

LIMIT_S = 10
"""Time in which hostile requests must be refused."""


@contextlib.contextmanager
def serving(run, place, *options):
    """Start a server as a user does; its uploads are in `place`."""
    place.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "ushape", "serve", str(run), "--port", "0", *map(str, options)],
        env={**command_environment(), "TMPDIR": str(place), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+:\d+", line)
        assert found, process.communicate(timeout=60)
        process.url = found[0]
        wait_until_ready(process.url)
        yield process
    finally:
        process.kill()
        process.communicate()


def folders_in(place):
    """Return the folders of servers; PyTorch may have one of its own beside them."""
    return list(place.glob(f"{PREFIX}*"))


def wait_until_ready(url):
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").status_code == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def predict(url, path, **options):
    files = {"image": (path.name, path.read_bytes())}
    return httpx.post(f"{url}/predict", files=files, timeout=60, **options)


@pytest.fixture(scope="module")
def images(cells):
    return sorted((cells / "images").iterdir())


def test_served_masks_equal_those_of_the_command(trained, images, tmp_path, ushape):
    assert ushape("predict", trained, *images, "-o", tmp_path / "masks").code == 0
    token = "an-unusually-long-token"
    with serving(trained, tmp_path / "uploads", "--token", token) as server:
        headers = {"Authorization": f"Bearer {token}"}
        assert predict(server.url, images[0]).status_code == 401
        for image in images:
            answer = predict(server.url, image, headers=headers)
            assert answer.content == (tmp_path / "masks" / image.name).read_bytes()
        name = httpx.get(f"{server.url}/metadata", headers=headers).json()["name"]
        client = InferenceServerClient(server.url.removeprefix("http://"))
        try:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready(name, headers=headers)
            assert client.get_model_metadata(name, headers=headers)["platform"] == "ushape"
            pixels = np.asarray(Image.open(images[0]))[None, None]
            tensor = InferInput("image", list(pixels.shape), "UINT8")
            tensor.set_data_from_numpy(pixels)
            found = client.infer(name, [tensor], headers=headers).as_numpy("mask")[0]
        finally:
            client.close()
        assert np.array_equal(found, np.asarray(Image.open(tmp_path / "masks" / images[0].name)))
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert folders_in(tmp_path / "uploads") == []


def post_raw(url, head, body=b"", *, pause_s=0.0):
    """Send a request, the body byte by byte if there is a pause, and return the whole answer."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.settimeout(0.01 if pause_s else 30)
        answer = b""
        with contextlib.suppress(OSError):
            connection.sendall(head)
            if not pause_s:
                connection.sendall(body)
            for number in range(len(body) if pause_s else 0):
                connection.sendall(body[number : number + 1])
                time.sleep(pause_s)
                with contextlib.suppress(TimeoutError):
                    answer += connection.recv(65536)
                    break
        connection.settimeout(30)
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                answer += part
        return answer


SLOW = {
    "nothing": (b"", b""),
    "slow headers": (b"", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 500),
    "slow body": (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n",
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n' + b"x" * 500,
    ),
    "no body": (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", b""),
}


def test_hostile_requests_are_refused_and_the_server_lives(trained, images, tmp_path):
    with serving(trained, tmp_path / "uploads") as server:
        assert predict(server.url, images[0]).status_code == 200
        bodies = {
            name: (hostile.form(hostile.part(*file)), hostile.FORM_TYPE)
            for name, file in hostile.FILES.items()
        }
        memory = psutil.Process(server.pid)
        before = memory.memory_info().rss
        for name, (body, kind) in {**bodies, **hostile.BODIES}.items():
            started = time.monotonic()
            headers = {"Content-Type": kind} if kind else {}
            answer = httpx.post(
                f"{server.url}/predict", content=body, headers=headers, timeout=LIMIT_S
            )
            assert 400 <= answer.status_code < 500, name
            assert time.monotonic() - started < LIMIT_S, name
            assert str(tmp_path) not in answer.text
        too_long = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"
        assert post_raw(server.url, too_long).startswith(b"HTTP/1.1 4")
        assert memory.memory_info().rss - before < 200e6
        answer = predict(server.url, images[0])
        assert answer.status_code == 200
        deadline = time.monotonic() + 60  # Files are removed after the answer was sent.
        while list((tmp_path / "uploads").glob(f"{PREFIX}*/[!.]*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_slow_senders_are_refused(trained, tmp_path):
    found = {}
    with serving(trained, tmp_path / "uploads") as server:

        def send(name, head, body):
            started = time.monotonic()
            answer = post_raw(server.url, head, body, pause_s=0.1)
            found[name] = answer, time.monotonic() - started

        threads = [
            threading.Thread(target=send, args=(name, *parts)) for name, parts in SLOW.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert httpx.get(f"{server.url}/health").status_code == 200
    for name, (answer, seconds) in found.items():
        assert answer.startswith(b"HTTP/1.1 4"), name
        assert seconds < LIMIT_S + 1, name
    assert found["slow body"][0].startswith(b"HTTP/1.1 408")
    assert found["slow headers"][0].startswith(b"HTTP/1.1 408")


def test_running_request_is_answered_before_the_server_stops(trained, images, tmp_path):
    with serving(trained, tmp_path / "uploads") as server:
        large = tmp_path / "large.png"
        pixels = np.asarray(Image.open(images[0]))
        Image.fromarray(np.tile(pixels, (12, 12))).save(large)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(predict(server.url, large)))
        thread.start()
        deadline = time.monotonic() + 60
        while "ushape_open_images 1.0" not in httpx.get(f"{server.url}/metrics").text:
            assert time.monotonic() < deadline
            if answers:
                break
        server.send_signal(signal.SIGINT)
        thread.join(60)
        assert answers[0].status_code == 200
        assert server.wait(30) == 130
        assert "Traceback" not in server.stderr.read()


def test_uploads_of_a_killed_server_are_removed_at_the_next_start(trained, images, tmp_path):
    place = tmp_path / "uploads"
    with serving(trained, place) as server:
        files = {"image": (images[0].name, images[0].read_bytes())}
        params = {"wait": "false"}
        answer = httpx.post(f"{server.url}/predict", files=files, params=params)
        assert answer.status_code == 202
        server.kill()
        server.wait()
    (left,) = folders_in(place)
    with serving(trained, place):
        assert not left.exists()


@pytest.mark.browser
def test_page_predicts_an_image_and_asks_no_other_server(trained, images, tmp_path, browser):
    token = "an-unusually-long-token"
    with serving(trained, tmp_path / "uploads", "--token", token) as server:
        page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
        page.set_default_timeout(60_000)
        requests, complaints = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.url)
        page.get_by_label("Images").set_input_files(images[0])
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Predict").click()
        page.get_by_role("link", name="Save the result").wait_for()
        assert page.get_by_alt_text("Result").evaluate("one => one.naturalWidth") == 64
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        page.get_by_label("Token").fill("another-long-but-wrong-token")
        page.get_by_role("button", name="Predict").click()
        page.get_by_text("The request has no valid token.").wait_for()
        page.context.close()
    assert [one for one in complaints if "401" not in one] == []
    assert [one for one in requests if not one.startswith((server.url, "blob:", "data:"))] == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--host", "0.0.0.0"), "token_required"),
        (("--token", "short"), "token_too_short"),
        (("--max-queue", 0), "value_out_of_range"),
        (("--port", 70_000), "value_out_of_range"),
    ],
)
def test_unsafe_or_impossible_options_are_refused(ushape, trained, options, code):
    ended = ushape("serve", trained, *options)
    assert (ended.code, ended.error_code) == (2, code)


def test_errors_are_json_with_a_hint(trained, images, tmp_path):
    with serving(trained, tmp_path / "uploads") as server:
        answer = httpx.get(f"{server.url}/nothing")
        assert sorted(json.loads(answer.text)) == ["code", "hint", "message"]
