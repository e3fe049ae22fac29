"""Listen on a port, serve an ASGI application quietly, and stop without interrupting requests."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ushape.errors import ConfigError, check_range
from ushape.serving.refusals import Refusal
from ushape.serving.safety import MAX_HEADER_BYTES, App, Gate

HEADER_TIMEOUT_S = 8.0
"""Time in which the headers of a request must arrive."""

WRITE_TIMEOUT_S = 30.0
"""Time in which a client must read the next part of an answer."""

MAX_CONNECTIONS = 512
"""Largest number of open connections."""

CLOSE_S = 1
"""Time in which answers are sent to the end after the last request is finished."""


def open_listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        port: Port number; 0 chooses a free one.

    Raises:
        ConfigError: if the address is unknown, or its port is used by another program.
    """
    check_range("port", port, 0, 65535, hint="Port 0 selects a free port.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # On Windows, it would let two programs use one port.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"The server cannot listen on {host}, port {port}: {reason}.",
            code="cannot_listen",
            hint="Specify another address with --host."
            if isinstance(error, socket.gaierror | UnicodeError)
            else "Choose another port; 0 selects a free one.",
        ) from None
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only programs on this machine can reach a socket."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def names_of(listener: socket.socket, host: str) -> frozenset[str]:
    """Return the names in the addresses of a socket: what the user named, and what is printed."""
    names = (host.strip("[]"), listener.getsockname()[0])
    return frozenset(name.lower().rstrip(".") for name in names)


def address_of(listener: socket.socket) -> str:
    """Return the address of a listening socket for a browser on this machine."""
    place, port = listener.getsockname()[:2]
    name = f"[{place}]" if ":" in place else place
    return f"http://{name}:{port}"


def run_server(app: App, listener: socket.socket, gate: Gate, *, stop_s: float = 30.0) -> None:
    """Serve an application until the process receives SIGTERM or SIGINT.

    After the signal, the gate is closed, so that new requests are refused. The call ends when the
    gate is idle, or after `stop_s`; a second signal ends it at once.

    Raises:
        KeyboardInterrupt: if the signal was SIGINT.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # The guard logs errors.
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_graceful_shutdown=CLOSE_S,
    )
    server = _Server(config, gate, stop_s)
    server.run(sockets=[listener])
    if server.signal_number == signal.SIGINT:
        raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """Server that ends when no request is in progress."""

    def __init__(self, config: uvicorn.Config, gate: Gate, stop_s: float):
        super().__init__(config)
        self.gate, self.stop_s = gate, stop_s
        self.signal_number: int | None = None
        self.stop_at = 0.0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        try:
            former = {number: signal.signal(number, self.handle_exit) for number in numbers}
        except ValueError:  # Not in the main thread, which alone receives signals.
            former = {}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            self.should_exit = self.force_exit = True
            return
        self.signal_number, self.stop_at = sig, time.monotonic() + self.stop_s
        self.gate.close()

    async def on_tick(self, counter: int) -> bool:
        if self.signal_number is not None:
            self.should_exit |= self.gate.is_idle or time.monotonic() > self.stop_at
        return await super().on_tick(counter)


class _Protocol(H11Protocol):
    """HTTP connection whose client must send headers and read answers in time."""

    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._close_with(Refusal(503, "unavailable", "There are too many connections."))
        else:
            self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._timer is None:
            self._start_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._close_with(Refusal(400, "invalid_request", "The request is not valid HTTP."))

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEADER_TIMEOUT_S, self._refuse_late_headers)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse_late_headers(self) -> None:
        self._timer = None
        self._close_with(Refusal(408, "too_slow", "The headers of the request arrive too slowly."))

    def _close_with(self, refusal: Refusal) -> None:
        """Send an error without the application, and close the connection."""
        if self.transport.is_closing():
            return
        content = json.dumps(refusal.body).encode()
        head = (
            f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()
