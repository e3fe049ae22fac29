"""Requests that are received at the same time, or when the disk is full."""

import asyncio
import errno
import json
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

import hostile
from ushape.serving import reservations
from ushape.serving.uploads import WRITTEN_BYTES

FORM = {"Content-Type": hostile.FORM_TYPE}
ARRAY = {
    "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 2], "data": [1, 2, 3, 4]}]
}


@pytest.fixture
def body(image):
    return hostile.form(hostile.part(image.read_bytes()))


def while_receiving(client, body, *requests, place="/predict", headers=FORM):
    """Send most of a request, then others, and then the rest; return all answers in this order."""

    async def run():
        halfway, others_answered = asyncio.Event(), asyncio.Event()

        async def parts():
            yield body[:-10]
            halfway.set()
            await others_answered.wait()
            yield body[-10:]

        transport = httpx.ASGITransport(app=client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as sender:
            first = asyncio.create_task(sender.post(place, content=parts(), headers=headers))
            await halfway.wait()
            others = [await sender.request(*one[:2], **one[2]) for one in requests]
            others_answered.set()
            return await first, *others

    return client.runner.run(run())


def code_of(answer):
    return answer.status_code, answer.json()["code"]


def test_queue_has_a_place_for_each_request_that_is_received(start, body):
    client = start(queue=1)
    infer = "/v2/models/cells/infer"
    first, image, array, health = while_receiving(
        client,
        body,
        ("POST", "/predict", {"content": body, "headers": FORM}),
        ("POST", infer, {"json": ARRAY}),
        ("GET", "/health", {}),
    )
    assert first.status_code == 200
    assert code_of(image) == code_of(array) == (429, "queue_full")
    assert array.json()["error"]
    assert health.status_code == 200
    arrays = json.dumps(ARRAY).encode()
    first, image = while_receiving(
        client,
        arrays,
        ("POST", "/predict", {"content": body, "headers": FORM}),
        place=infer,
        headers={},
    )
    assert (first.status_code, code_of(image)) == (200, (429, "queue_full"))
    for _ in range(2):  # Nothing stays reserved.
        assert client("POST", infer, json=ARRAY).status_code == 200
        assert client("POST", "/predict", content=body, headers=FORM).status_code == 200


def test_places_of_refused_requests_are_returned(start, body, image):
    client = start(queue=2)
    for content in (b"", body[:-10], hostile.form(hostile.part(b"no image"))):
        assert client("POST", "/predict", content=content, headers=FORM).status_code >= 400
    assert client.predict(*[image] * 3).json()["code"] == "too_many_images"
    assert client("POST", "/v2/models/cells/infer", content=b"[").status_code == 400
    assert client.predict(image, image).status_code == 200


def test_places_of_clients_that_leave_are_returned(start, body, image):
    client = start(queue=1)

    async def leave():
        async def receive():
            return {"type": "http.disconnect"}

        pairs = {"host": "localhost", "content-type": hostile.FORM_TYPE, "content-length": "1000"}
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
        }
        await client.app(scope, receive, None)

    client.runner.run(leave())
    assert client.predict(image).status_code == 200


def test_requests_that_are_received_together_must_fit_onto_the_disk(client, body, monkeypatch):
    free = reservations.SPARE_BYTES + 5 * len(body)
    fake = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(reservations, "shutil", fake)
    one = ("POST", "/predict", {"content": body, "headers": FORM})
    stated = {**FORM, "Content-Length": str(len(body))}
    first, other = while_receiving(client, body, one, headers=stated)
    assert (first.status_code, code_of(other)) == (200, (503, "disk_full"))
    assert other.headers["retry-after"]
    assert client(*one[:2], **one[2]).status_code == 200
    assert list(client.folder.glob("[!.]*")) == []


def test_too_many_requests_leave_health_and_metrics_answerable(client):
    client.gate.active = 1000
    for path in ("/health", "/metrics", "/v2/health/live", "/v2/health/ready"):
        assert client("GET", path).status_code == 200
    assert code_of(client("GET", "/metadata")) == (503, "unavailable")


def check_disk_full(client, answer, caplog):
    assert code_of(answer) == (503, "disk_full")
    assert answer.headers["retry-after"]
    (record,) = [one for one in caplog.records if one.name.startswith("ushape")]
    assert "not enough disk space" in record.message
    assert record.exc_info is None
    assert list(client.folder.glob("[!.]*")) == []


def raising(number):
    def fail(*arguments, **options):
        raise OSError(number, "The disk is full", "/srv/place/file")

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("place", ["ushape.serving.uploads._Form.write", "pathlib.Path.mkdir"])
def test_disk_that_is_full_while_images_are_received(
    client, image, caplog, monkeypatch, number, place
):
    with monkeypatch.context() as patch:
        patch.setattr(place, raising(number))
        answer = client.predict(image)
    check_disk_full(client, answer, caplog)
    assert client.predict(image).status_code == 200


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
@pytest.mark.parametrize("size", [10, 2 * WRITTEN_BYTES])  # It fails at the end, or before.
def test_file_on_a_full_disk(client, caplog, monkeypatch, size):
    monkeypatch.setattr("ushape.serving.uploads._Form._place", lambda *_: Path("/dev/full"))
    body = hostile.form(hostile.part(bytes(size)))
    check_disk_full(client, client("POST", "/predict", content=body, headers=FORM), caplog)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("count", [1, 2])
def test_disk_that_is_full_while_the_prediction_is_written(
    client, image, caplog, monkeypatch, number, count
):
    place = "ushape.io.files.os.fsync" if count == 1 else "ushape.serving.jobs.pack"
    with monkeypatch.context() as patch:
        patch.setattr(place, raising(number))
        answer = client.predict(*[image] * count)
    check_disk_full(client, answer, caplog)
    assert client.predict(image).status_code == 200


def test_job_whose_prediction_does_not_fit_onto_the_disk_says_so(client, image, monkeypatch):
    monkeypatch.setattr("ushape.io.files.os.fsync", raising(errno.ENOSPC))
    place = client.predict(image, wait=False).headers["location"]

    async def ended():
        async with asyncio.timeout(60):
            while (await get(place)).json()["state"] != "failed":
                await asyncio.sleep(0.01)

    async def get(path):
        transport = httpx.ASGITransport(app=client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as sender:
            return await sender.get(path)

    client.runner.run(ended())
    assert client("GET", place).json()["error"]["code"] == "disk_full"
    assert code_of(client("GET", f"{place}/result")) == (503, "disk_full")
