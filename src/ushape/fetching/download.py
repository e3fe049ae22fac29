"""One file over HTTP(S): resumed where it was cut off, checked, then renamed."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from ushape.errors import DataError

BLOCK = 1 << 20
TIMEOUT_S = 30


def download(address: str, target: Path, *, sha256: str | None = None) -> Path:
    """Downloads to `target`; what a broken connection left is continued by the next call.

    Args:
        sha256: Of the whole file, hexadecimal; None: only the server's size is checked.

    Raises:
        DataError: not reachable, cut off, or not the file that was expected.
    """
    partial = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    begun = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address)
    if begun:
        request.add_header("Range", f"bytes={begun}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            is_rest = answer.status == 206
            expected = _length(answer) + (begun if is_rest else 0)
            with partial.open("ab" if is_rest else "wb") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # Nothing is left to send: the file was whole already.
            raise _unreachable(address, error) from None
        expected = begun
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from None
    _check(partial, expected, sha256, address)
    partial.replace(target)
    return target


def _length(answer: object) -> int:
    """What the server says is coming; -1 where it does not say."""
    length = getattr(answer, "headers", {}).get("Content-Length")
    return int(length) if length is not None else -1


def _check(partial: Path, expected: int, sha256: str | None, address: str) -> None:
    size = partial.stat().st_size
    if 0 <= expected != size and size < expected:
        raise DataError(
            f"{address}: cut off after {size} of {expected} bytes.",
            hint="The same command continues it.",
        )
    digest = hashlib.sha256()
    with partial.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if sha256 is not None and digest.hexdigest() != sha256.lower():
        partial.unlink()
        raise DataError(
            f"{address}: checksum {digest.hexdigest()[:16]}..., expected {sha256[:16]}...",
            hint="The file was changed or damaged and has been removed. Try again, or another "
            "address with --from.",
        )


def _unreachable(address: str, error: Exception) -> DataError:
    return DataError(
        f"{address}: {error}.",
        hint="Check the address and the connection; what has arrived is kept and continued.",
    )
