"""Protection of a server: who may send requests, how much, and how slowly."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ushape.serving.refusals import RETRY_AFTER, Refusal, log_failure, refusal_of

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names by which a server on this machine is addressed."""

MAX_HEADER_BYTES = 1 << 14
"""Largest size of all headers of a request."""

WINDOW_S = 5.0
"""Time of waiting for a body after which the rate of its sender is checked."""

MIN_WINDOW_BYTES = 5000
"""Bytes that must arrive in this time."""

RECEIVE_S = 60.0
"""Time that the body of every request may take."""

RECEIVE_RATE = 100_000.0
"""Bytes for which a body may take one second more."""

DRAIN_S = 2.0
"""Time for which the body of a refused request is read and dropped, so that clients that send all
of it before they read see the answer."""

DRAIN_BYTES = 1 << 26
"""Bytes of such a body that are read at most."""

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers of all answers that do not set them."""


@dataclass
class Gate:
    """Requests in progress, and whether new ones are accepted."""

    active: int = 0
    is_closed: bool = False
    is_busy: Callable[[], bool] = lambda: False
    """Function that returns whether work is in progress that no request waits for."""

    def close(self) -> None:
        """Refuse new requests, because the server ends."""
        self.is_closed = True

    @property
    def is_idle(self) -> bool:
        return not self.active and not self.is_busy()


@dataclass(frozen=True, kw_only=True)
class Guard:
    """ASGI application that passes only acceptable requests on to another one.

    Requests of other web pages are refused by their headers Host and Origin, so that no page in
    the user's browser can reach a server on this machine (DNS rebinding, cross-site requests).
    """

    app: App
    gate: Gate
    hosts: frozenset[str] | None = LOOPBACK_NAMES
    """Host names by which the server may be addressed; None: all."""

    token: str = ""
    """Token that requests must contain; empty: none."""

    cookie: str = ""
    """Name of a cookie that may contain the token; empty: only the header Authorization may."""

    open_paths: frozenset[str] = frozenset()
    """Paths that need no token."""

    vital_paths: frozenset[str] = frozenset()
    """Paths that are answered even if too many requests are in progress."""

    max_body_bytes: int = 1 << 20
    max_active: int = 256
    """Number of requests that may be in progress."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        body, answer = _Body(receive, self.max_body_bytes), _Answer(send, self.gate)
        self.gate.active += 1
        try:
            self._check(scope["path"], headers)
            await self.app(scope, body, answer)
        except Disconnected:
            pass
        except Exception as error:
            log_failure(error)
            if answer.has_started:
                raise  # The connection is closed, since the answer may be incomplete.
            await _refuse(refusal_of(error), body, answer, b"expect" in headers)
        finally:
            self.gate.active -= 1

    def _check(self, path: str, headers: Mapping[bytes, str]) -> None:
        """Raise Refusal unless the request may be processed."""
        is_crowded = self.gate.active > self.max_active and path not in self.vital_paths
        if self.gate.is_closed or is_crowded:
            what = "is being stopped" if self.gate.is_closed else "has too many requests"
            raise Refusal(
                503, "unavailable", f"The server {what}.", "Try again later.", [RETRY_AFTER]
            )
        if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADER_BYTES:
            raise Refusal(431, "headers_too_large", "The headers of the request are too large.")
        host = headers.get(b"host", "")
        if self.hosts is not None and _name_in(host) not in self.hosts:
            raise Refusal(
                421,
                "wrong_host",
                "The server does not accept requests for this host name.",
                f"Use one of these: {', '.join(sorted(self.hosts))}.",
            )
        origin = headers.get(b"origin")
        if origin is not None and _host_of(origin) != host.lower():
            raise Refusal(403, "cross_origin", "Requests from other websites are rejected.")
        if self.token and path not in self.open_paths and not self._bears_token(headers):
            raise Refusal(
                401,
                "wrong_token",
                "The request has no valid token.",
                "Send the header Authorization: Bearer TOKEN.",
                [("WWW-Authenticate", "Bearer")],
            )
        length = headers.get(b"content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.max_body_bytes:
            raise _too_large(self.max_body_bytes)

    def _bears_token(self, headers: Mapping[bytes, str]) -> bool:
        """Return whether the headers contain the token; comparisons take the same time always."""
        kind, _, given = headers.get(b"authorization", "").partition(" ")
        found = [given.strip()] if kind.lower() == "bearer" else []
        for one in headers.get(b"cookie", "").split(";") if self.cookie else ():
            name, _, value = one.strip().partition("=")
            found += [value] if name == self.cookie else []
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in found)


def _host_of(origin: str) -> str | None:
    """Return host and port of an address; None if it is invalid."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


class Disconnected(Exception):
    """The client has closed the connection before its request was complete."""


@dataclass
class _Body:
    """Receives the body of a request; a large or slow one is refused."""

    receive: Receive
    max_bytes: int
    count: int = 0
    is_complete: bool = False
    total_s: float = 0.0
    """Time of waiting for the sender."""

    waited_s: float = 0.0
    in_window: int = 0

    async def __call__(self) -> Message:
        if self.is_complete:
            return await self.receive()
        started = time.monotonic()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.01, WINDOW_S - self.waited_s))
        except TimeoutError:
            message = {"type": "http.request", "body": b"", "more_body": True}
        if message["type"] == "http.disconnect":
            self.is_complete = True
            raise Disconnected
        size = len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        self.count += size
        self.in_window += size
        waited_s = time.monotonic() - started
        self.waited_s += waited_s
        self.total_s += waited_s
        if self.count > self.max_bytes:
            raise _too_large(self.max_bytes)
        if not self.is_complete:
            self._check_speed()
        return message

    def _check_speed(self) -> None:
        """Raise Refusal if the sender is too slow, at present or on the whole."""
        if self.total_s > RECEIVE_S + self.count / RECEIVE_RATE:
            raise _too_slow()
        if self.waited_s >= WINDOW_S:
            if self.in_window < MIN_WINDOW_BYTES:
                raise _too_slow()
            self.waited_s, self.in_window = 0.0, 0


@dataclass
class _Answer:
    """Sends an answer with the headers of all answers."""

    send: Send
    gate: Gate
    has_started: bool = field(default=False, init=False)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            own = list(message.get("headers", []))
            known = {name.lower() for name, _ in own}
            added = [pair for pair in HEADERS if pair[0] not in known]
            if self.gate.is_closed and b"connection" not in known:
                added.append((b"connection", b"close"))  # Its client uses the next server.
            message = {**message, "headers": [*own, *added]}
        await self.send(message)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(
        413,
        "body_too_large",
        f"The request has more than {max_bytes} bytes, the limit of this server.",
        "Send fewer or smaller images at a time, or ask the operator for a higher limit.",
    )


def _too_slow() -> Refusal:
    return Refusal(
        408,
        "too_slow",
        "The body of the request arrives too slowly.",
        f"The limit is {RECEIVE_S:g} seconds plus one for every {RECEIVE_RATE / 1000:g} kB. "
        "Send fewer or smaller images at a time, or use a faster connection.",
    )


def _name_in(host: str) -> str:
    """Return the name in the header Host without its port, in lower case."""
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else ""
    return (name or host.partition(":")[0]).lower().rstrip(".")


async def _refuse(refusal: Refusal, body: _Body, send: Send, is_asking: bool) -> None:
    """Send an error; then read the rest of the body for a moment.

    Args:
        is_asking: Whether the client waits for a permission before it sends the body.
    """
    content = json.dumps(refusal.body).encode()
    headers = {
        **refusal.headers,
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
    }
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    if not (body.is_complete or is_asking or refusal.status == 408):
        await _drain(body)
    await send({"type": "http.response.body", "body": b""})


async def _drain(body: _Body) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            rest = DRAIN_BYTES
            while rest > 0:
                message = await body.receive()
                rest -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
