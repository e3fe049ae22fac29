import json
import signal
import socket
import threading
import time

import pytest

from ushape.errors import ConfigError
from ushape.serving import server
from ushape.serving.safety import Gate
from ushape.serving.server import address_of, is_loopback, names_of, open_listener


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/large":
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
    await send({"type": "http.response.body", "body": b"ok"})


class Running:
    """A server in a thread."""

    def __init__(self):
        self.listener, self.gate = open_listener("127.0.0.1", 0), Gate()
        self.port = self.listener.getsockname()[1]
        config = server.uvicorn.Config(
            app,
            http=server._Protocol,
            lifespan="off",
            log_config=None,
            log_level="critical",
            h11_max_incomplete_event_size=server.MAX_HEADER_BYTES,
            timeout_graceful_shutdown=1,
        )
        self.server = server._Server(config, self.gate, stop_s=5)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()

    def send(self, content):
        """Send bytes and return all of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(content)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

    def stop(self):
        self.server.handle_exit(signal.SIGTERM, None)
        self.thread.join(20)


@pytest.fixture
def running(monkeypatch):
    monkeypatch.setattr(server, "HEADER_TIMEOUT_S", 0.3)
    found = Running()
    yield found
    found.stop()
    assert not found.thread.is_alive()


def error_code(answer):
    return json.loads(answer.partition(b"\r\n\r\n")[2])["code"]


def test_request_is_answered_and_server_stops(running):
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = running.send(request)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\nok\r\n" in answer
    running.stop()
    assert running.gate.is_closed
    assert not running.thread.is_alive()


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", b"408", "too_slow"),
        (b"GET / HTTP/1.1\r\nHost: loc", b"408", "too_slow"),
        (b"\x16\x03\x01\x02\x00\x01", b"4", None),
        (b"GARBAGE\r\n\r\n", b"400", "invalid_request"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b"400", "invalid_request"),
    ],
)
def test_incomplete_or_invalid_requests_are_refused(running, content, status, code):
    answer = running.send(content)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert code is None or error_code(answer) == code


def test_slow_headers_of_a_second_request_are_refused(running):
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(request)
        while not connection.recv(65536).endswith(b"0\r\n\r\n"):
            pass
        connection.sendall(b"GET / HT")
        assert error_code(connection.recv(65536)) == "too_slow"


def test_client_that_does_not_read_is_disconnected(running, monkeypatch):
    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", 0.2)
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + 20
        while not running.server.server_state.connections:
            assert time.monotonic() < deadline
        while running.server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_connections_are_limited(running, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 0)
    assert running.send(b"").startswith(b"HTTP/1.1 503")


def test_server_is_addressed_by_the_name_that_the_user_gave_and_by_the_printed_one():
    with open_listener("LocalHost", 0) as listener:
        place = listener.getsockname()[0]
        assert names_of(listener, "LocalHost") == {"localhost", place}
        assert place in address_of(listener)


def test_listener_chooses_a_free_port():
    with open_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address_of(listener) == f"http://127.0.0.1:{port}"
        assert is_loopback(listener)
        with pytest.raises(ConfigError) as error:
            open_listener("127.0.0.1", port)
        assert error.value.code == "cannot_listen"
        assert "port" in error.value.hint
    with open_listener("0.0.0.0", 0) as listener:
        assert not is_loopback(listener)


@pytest.mark.parametrize(
    ("host", "port", "code"),
    [("no such host", 0, "cannot_listen"), ("127.0.0.1", 70_000, "value_out_of_range")],
)
def test_unusable_addresses_are_refused(host, port, code):
    with pytest.raises(ConfigError) as error:
        open_listener(host, port)
    assert error.value.code == code
    assert ("--host" in error.value.hint) == (host == "no such host")
