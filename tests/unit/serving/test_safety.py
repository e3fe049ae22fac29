import asyncio
import errno
import json
from types import SimpleNamespace

import pytest

from ushape.errors import ConfigError, DataError, MissingPackageError, RunError
from ushape.serving import safety
from ushape.serving.refusals import Refusal, refusal_of, without_folders
from ushape.serving.safety import Disconnected, Gate, Guard


async def reading_app(scope, receive, send):
    """Read the whole body and answer with its length."""
    size, is_complete = 0, False
    while not is_complete:
        message = await receive()
        size += len(message["body"])
        is_complete = not message.get("more_body", False)
    content = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": content})


class Sender:
    """A client that sends the chunks of a body, each after some seconds, and then nothing."""

    def __init__(self, *chunks, pause_s=0.0, ends=True):
        self.chunks, self.pause_s, self.ends = list(chunks), pause_s, ends

    async def __call__(self):
        if not self.chunks:
            await asyncio.sleep(60)
        await asyncio.sleep(self.pause_s)
        chunk = self.chunks.pop(0)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {
            "type": "http.request",
            "body": chunk,
            "more_body": bool(self.chunks or not self.ends),
        }


def ask(sender=None, *, app=reading_app, headers=(), path="/x", gate=None, **options):
    """Return the status, the headers and the content of the answer."""
    pairs = {"host": "localhost:8000", **dict(headers)}
    scope = {
        "type": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in pairs.items() if value],
    }
    sent = []

    async def send(message):
        sent.append(message)

    guard = Guard(app=app, gate=gate or Gate(), **options)
    asyncio.run(guard(scope, sender or Sender(b""), send))
    if not sent:
        return None, {}, b""
    content = b"".join(one.get("body", b"") for one in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), content


def code_of(answer):
    status, _, content = answer
    return status, json.loads(content)["code"]


def test_acceptable_request_is_passed_on_and_its_answer_has_the_headers_of_all():
    status, headers, content = ask(Sender(b"abc", b"de"))
    assert (status, content) == (200, b"5")
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:80", "[::1]:9", "LOCALHOST", "localhost."]
)
def test_loopback_names_are_accepted(host):
    assert ask(headers={"host": host})[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", ""])
def test_other_host_names_are_refused(host):
    assert code_of(ask(headers={"host": host})) == (421, "wrong_host")
    assert ask(headers={"host": host}, hosts=None)[0] == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://[", 403),
        ("http://localhost:8000", 200),
        ("http://localhost:9000", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_requests_of_other_pages_are_refused(origin, status):
    assert ask(headers={"origin": origin})[0] == status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("Bearer secret", 200),
        ("bearer secret", 200),
        ("Bearer secret2", 401),
        ("Bearer sécret", 401),
        ("Basic secret", 401),
        ("secret", 401),
        ("", 401),
    ],
)
def test_token_is_required(value, status):
    assert ask(headers={"authorization": value}, token="secret")[0] == status


def test_open_paths_need_no_token():
    assert ask(path="/health", token="secret", open_paths=frozenset({"/health"}))[0] == 200


def test_stated_and_sent_sizes_are_limited():
    stated = ask(headers={"content-length": "11"}, max_body_bytes=10)
    assert code_of(stated) == (413, "body_too_large")
    assert code_of(ask(Sender(b"123456", b"78901"), max_body_bytes=10)) == (413, "body_too_large")
    assert ask(Sender(b"12345", b"67890"), max_body_bytes=10)[0] == 200
    huge = ask(headers={"content-length": "9" * 5000}, max_body_bytes=10)
    assert code_of(huge) == (413, "body_too_large")


def test_headers_are_limited():
    assert ask(headers={f"x-{number}": "a" * 100 for number in range(100)})[0] == 200
    many = ask(headers={f"x-{number}": "a" * 100 for number in range(200)})
    assert code_of(many) == (431, "headers_too_large")


def test_slow_body_is_refused(monkeypatch):
    monkeypatch.setattr(safety, "WINDOW_S", 0.05)
    trickle = Sender(*[b"x"] * 1000, pause_s=0.01)
    assert code_of(ask(trickle)) == (408, "too_slow")
    assert code_of(ask(Sender(b"x", ends=False))) == (408, "too_slow")


def test_fast_but_long_body_is_accepted(monkeypatch):
    monkeypatch.setattr(safety, "WINDOW_S", 0.02)
    chunk = b"x" * 10_000
    assert ask(Sender(*[chunk] * 10, pause_s=0.01))[0] == 200


class Line:
    """A client that sends chunks of one size; each takes some seconds of a clock."""

    def __init__(self, monkeypatch, chunk_bytes, chunk_s, count):
        self.chunk_bytes, self.chunk_s, self.count = chunk_bytes, chunk_s, count
        self.now_s, self.sent = 0.0, 0
        monkeypatch.setattr(safety, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    async def __call__(self):
        self.now_s += self.chunk_s
        self.sent += 1
        more = self.sent < self.count
        return {"type": "http.request", "body": bytes(self.chunk_bytes), "more_body": more}


@pytest.mark.parametrize(
    ("chunk_bytes", "sent"),
    [
        # After n chunks of 5 s, 5 n > 60 + n * chunk_bytes / 100,000.
        (5_500, 13),  # 1.1 kB/s: n > 60 / 4.945 = 12.1.
        (50_000, 14),  # 10 kB/s: n > 60 / 4.5 = 13.3.
        (250_000, 25),  # 50 kB/s: n > 60 / 2.5 = 24.
    ],
)
def test_time_of_a_body_is_limited_by_its_size(monkeypatch, chunk_bytes, sent):
    line = Line(monkeypatch, chunk_bytes, 5.0, count=1000)
    assert code_of(ask(line, max_body_bytes=10**9)) == (408, "too_slow")
    assert line.sent == sent


def test_slow_line_has_the_time_that_it_needs(monkeypatch):
    """A gigabyte at 100 kB/s takes three hours; small bodies may come as slowly as 1 kB/s."""
    gigabyte = Line(monkeypatch, 10**6, 10.0, count=1000)
    assert ask(gigabyte, max_body_bytes=10**9)[0] == 200
    small = Line(monkeypatch, 5_500, 5.0, count=12)
    assert ask(small)[0] == 200
    late = Line(monkeypatch, 5_500, 5.0, count=13)  # Too late, but complete.
    assert ask(late)[0] == 200


def test_rest_of_a_refused_body_is_read_and_dropped():
    sender = Sender(*[b"x" * 100] * 50)
    assert ask(sender, headers={"host": "evil.example"})[0] == 421
    assert sender.chunks == []


def test_client_that_leaves_gets_no_answer():
    gate = Gate()
    assert ask(Sender(b"x", None), gate=gate)[0] is None
    assert gate.is_idle


def test_closed_gate_and_too_many_requests_are_refused():
    gate = Gate()
    gate.close()
    status, headers, content = ask(gate=gate)
    assert (status, json.loads(content)["code"]) == (503, "unavailable")
    assert b"retry-after" in headers
    assert ask(gate=Gate(active=2), max_active=2)[0] == 503
    vital = frozenset({"/health"})
    assert ask(gate=Gate(active=2), max_active=2, path="/health", vital_paths=vital)[0] == 200
    assert ask(gate=gate, path="/health", vital_paths=vital)[0] == 503
    assert not Gate(is_busy=lambda: True).is_idle


def test_unknown_error_is_logged_but_not_described(caplog):
    async def fail(scope, receive, send):
        raise ValueError("secret of /srv/models/one")

    status, _, content = ask(app=fail)
    assert (status, json.loads(content)["code"]) == (500, "internal_error")
    assert b"secret" not in content
    assert b"Traceback" not in content
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refusal(429, "busy", "Busy."), 429),
        (DataError("a", code="damaged_file"), 422),
        (DataError("a", code="image_too_large"), 413),
        (DataError("a", code="unknown_format"), 415),
        (MissingPackageError("a"), 415),
        (ConfigError("a"), 400),
        (RunError("a"), 500),
        (ValueError("a"), 500),
    ],
)
def test_status_follows_from_the_error(error, status):
    assert refusal_of(error).status == status


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_recognized_behind_other_errors(number):
    full = OSError(number, "Full", "/srv/x")
    for error in (full, caused(full, from_it=True), caused(full, from_it=False)):
        found = refusal_of(error)
        assert (found.status, found.code) == (503, "disk_full")
        assert "Retry-After" in found.headers
        assert "/srv" not in found.message + found.hint
    other = OSError(errno.EACCES, "No", "/srv/x")
    assert refusal_of(other).status == 500
    assert refusal_of(caused(other, from_it=False)).code == "damaged_file"


def caused(error, *, from_it):
    """Return the error that a reader raises because of another one."""
    try:
        try:
            raise error
        except OSError as cause:
            raise DataError("Bad.", code="damaged_file") from (cause if from_it else None)
    except DataError as found:
        return found


def test_answers_name_no_folders():
    found = refusal_of(DataError("/tmp/a b/upload.png: bad.", hint=r"See C:\data\x\y.tif or /x."))
    assert "/tmp" not in found.message
    assert found.hint == "See y.tif or /x."
    assert without_folders("/tmp/ushape-1/image.png: the file is empty.") == (
        "image.png: the file is empty."
    )
    assert without_folders("5 of 6 pixels/mm, a/b") == "5 of 6 pixels/mm, a/b"


def test_folders_with_spaces_are_left_out_of_messages(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "john doe" / "tmp dir"))
    path = tmp_path / "john doe" / "tmp dir" / "ushape-serve-a1_b" / "f00" / "0" / "image.png"
    assert without_folders(f"{path}: the file is empty.") == "image.png: the file is empty."


def test_disconnected_is_no_server_error(caplog):
    async def leave(scope, receive, send):
        raise Disconnected

    assert ask(app=leave)[0] is None
    assert caplog.text == ""
