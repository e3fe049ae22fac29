"""One file over HTTP(S): continued where it was cut off, checked, then renamed."""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from ushape.errors import ConfigError, DataError

BLOCK = 1 << 20
SAY_EVERY_BYTES = 64 << 20
TIMEOUT_S = 30.0
ATTEMPTS = 3
"""Connections that may break before we give up; each continues the one before."""


def download(
    address: str,
    target: Path,
    *,
    size_bytes: int | None = None,
    sha256: str | None = None,
    say: Callable[[str], None],
) -> Path:
    """Downloads to `target`, through `target`.partial, which a later call continues.

    Args:
        size_bytes: Of the whole file; None: what the server states.
        sha256: Of the whole file, hexadecimal.

    Raises:
        ConfigError: not an http(s) address.
        DataError: not reachable, cut off, or not the file that was expected.
    """
    # urllib would read file:// and ftp:// as well.
    if not address.lower().startswith(("https://", "http://")):
        raise ConfigError(
            f"{address} is no web address.",
            hint="Addresses begin with https://; a file of yours is named by its path.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, marker = _beside(target, ".partial"), _beside(target, ".marker")
    for attempt in range(1, ATTEMPTS + 1):
        is_whole, expected = _receive(address, partial, marker, say)
        if is_whole:
            break
        cut = f"after {partial.stat().st_size} of {expected or 'unknown'} bytes"
        if attempt < ATTEMPTS:
            say(f"Cut off {cut}; continuing.")
    else:
        raise DataError(
            f"{address}: cut off {cut}.",
            hint="What has arrived is kept. The same command continues it.",
        )
    try:
        check(partial, address, size_bytes=size_bytes or expected, sha256=sha256)
    except DataError:
        _forget(partial, marker)
        raise
    partial.replace(target)
    marker.unlink(missing_ok=True)
    return target


def check(file: Path, origin: str, *, size_bytes: int | None, sha256: str | None) -> None:
    """Compares a whole file with what was promised.

    Raises:
        DataError: another size or checksum.
    """
    size = file.stat().st_size
    if size_bytes is not None and size != size_bytes:
        raise DataError(
            f"{origin}: {size} bytes, expected {size_bytes}.",
            hint="This is another file, or a damaged one. Try again, or another address.",
        )
    if sha256 is None:
        return
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256.strip().lower():
        raise DataError(
            f"{origin}: SHA-256 is {found}, expected {sha256.strip().lower()}.",
            hint="This is another file, or a damaged one. Try again, or another address.",
        )


def _receive(
    address: str, partial: Path, marker: Path, say: Callable[[str], None], *, afresh: bool = False
) -> tuple[bool, int | None]:
    """Adds to `partial` what the server sends.

    Returns:
        Whether it is whole now; the whole size, None where the server does not state it.
    """
    if afresh:
        _forget(partial, marker)
    begun = partial.stat().st_size if partial.exists() else 0
    try:
        answer = _open(address, begun, marker)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not begun:
            raise _unreachable(address, f"HTTP {error.code} {error.reason}") from None
        # Nothing after `begun`: we have all of it, or more than there is.
        whole = _number(r"\*/(\d+)", error.headers.get("Content-Range"))
        if whole is None or whole == begun:
            return True, begun
        return _receive(address, partial, marker, say, afresh=True)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise _unreachable(address, str(reason) or type(error).__name__) from None

    with answer:
        is_rest = answer.status == 206
        if is_rest and _number(r"bytes (\d+)-", answer.headers.get("Content-Range")) != begun:
            if afresh:
                raise _unreachable(address, "the server sends another part than asked for")
            return _receive(address, partial, marker, say, afresh=True)
        have = begun if is_rest else 0
        length = _number(r"(\d+)$", answer.headers.get("Content-Length"))
        expected = None if length is None else have + length
        of = "" if expected is None else f" of {_mib(expected)}"
        say(f"{'Continuing' if have else 'Downloading'} {address}: {_mib(have)}{of} MiB")
        with partial.open("ab" if is_rest else "wb") as file:
            if not is_rest:  # Only now: with the old bytes it would vouch for a mixture.
                marker.write_text(_marker_of(answer))
            is_whole = _copy(answer, file.write, have, of, say)
    return is_whole and (expected is None or partial.stat().st_size >= expected), expected


def _copy(
    answer: HTTPResponse,
    write: Callable[[bytes], object],
    have: int,
    of: str,
    say: Callable[[str], None],
) -> bool:
    """False where the connection broke."""
    while True:
        try:
            # read1 hands over what has come; read would lose it when the rest does not.
            block = answer.read1(BLOCK)
        except (OSError, HTTPException):
            return False
        if not block:
            return True
        write(block)
        if have // SAY_EVERY_BYTES != (have + len(block)) // SAY_EVERY_BYTES:
            say(f"{_mib(have + len(block))}{of} MiB")
        have += len(block)


def _open(address: str, begun: int, marker: Path) -> HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": "ushape"})
    if begun:
        request.add_header("Range", f"bytes={begun}-")
        # If the file has changed since, the server sends all of it.
        if marker.exists() and (version := marker.read_text()):
            request.add_header("If-Range", version)
    answer: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    return answer


def _marker_of(answer: HTTPResponse) -> str:
    """What tells this version of the file from others; weak tags are not allowed in If-Range."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _forget(partial: Path, marker: Path) -> None:
    partial.unlink(missing_ok=True)
    marker.unlink(missing_ok=True)


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _number(pattern: str, header: str | None) -> int | None:
    found = re.search(pattern, header or "")
    return int(found[1]) if found else None


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f}"


def _unreachable(address: str, reason: str) -> DataError:
    return DataError(
        f"{address}: {reason}.",
        hint="Check the address and the connection, then run the same command again; what has "
        "arrived is kept. Or name another address, or an archive of yours, with --from.",
    )
