"""Download archives: over HTTP(S), resumable and checked, or through Kaggle's client."""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NoReturn, Protocol

from ushape.datasets import Source
from ushape.errors import ConfigError, DataError, UshapeError, require_package

RECEIVE_BYTES = 1 << 20
"""Largest number of bytes that are received at once."""

PROGRESS_BYTES = 64 << 20
"""Number of bytes between two progress messages."""

TIMEOUT_S = 30.0
ATTEMPTS = 3
"""Number of connections; each continues where the previous one broke."""


def download(
    address: str,
    target: Path,
    *,
    size_bytes: int | None = None,
    sha256: str | None = None,
    say: Callable[[str], None],
) -> Path:
    """Download a file through `target`.partial, which a later call continues.

    Args:
        size_bytes: Size of the complete file; None: the size that the server reports.
        sha256: Checksum of the complete file, hexadecimal.

    Raises:
        ConfigError: if the address is not http or https.
        DataError: if the server cannot be reached, the download is cut off, or the file is not
            the expected one.
    """
    # urllib would also read file:// and ftp://.
    if not address.lower().startswith(("https://", "http://")):
        raise ConfigError(
            f"{address} is not a web address.",
            code="invalid_address",
            hint="Web addresses begin with https://. To use a local file, specify its path.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, marker = _beside(target, ".partial"), _beside(target, ".marker")
    for attempt in range(1, ATTEMPTS + 1):
        is_whole, expected = _receive(address, partial, marker, say)
        if is_whole:
            break
        cut = f"after {partial.stat().st_size} of {expected or 'unknown'} bytes"
        if attempt < ATTEMPTS:
            say(f"The download was interrupted {cut}; continuing.")
    else:
        raise DataError(
            f"{address}: the download was interrupted {cut}.",
            code="download_incomplete",
            hint="The received data are kept. Run the same command again to continue.",
        )
    try:
        check_file(partial, address, size_bytes=size_bytes or expected, sha256=sha256)
    except DataError:
        _forget(partial, marker)
        raise
    partial.replace(target)
    marker.unlink(missing_ok=True)
    return target


def check_file(file: Path, origin: str, *, size_bytes: int | None, sha256: str | None) -> None:
    """Compare a file with its expected size and checksum.

    Raises:
        DataError: if they differ.
    """
    size = file.stat().st_size
    if size_bytes is not None and size != size_bytes:
        raise DataError(
            f"{origin}: the file has {size} bytes instead of the expected {size_bytes}.",
            code="download_mismatch",
            hint="The file is damaged or a different one. Try again, or use another address.",
        )
    if sha256 is None:
        return
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256.strip().lower():
        raise DataError(
            f"{origin}: the SHA-256 checksum is {found}, expected {sha256.strip().lower()}.",
            code="download_mismatch",
            hint="The file is damaged or a different one. Try again, or use another address.",
        )


def _receive(
    address: str, partial: Path, marker: Path, say: Callable[[str], None], *, restart: bool = False
) -> tuple[bool, int | None]:
    """Append to `partial` what the server sends.

    Returns:
        Whether the file is complete, and its size; None if the server does not report it.
    """
    if restart:
        _forget(partial, marker)
    begun = partial.stat().st_size if partial.exists() else 0
    try:
        response = _open(address, begun, marker)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not begun:
            raise _unreachable(address, f"HTTP {error.code} {error.reason}") from None
        # No bytes after `begun`: the file is complete, or longer than that of the server.
        whole = _number_in(r"\*/(\d+)", error.headers.get("Content-Range"))
        if whole is None or whole == begun:
            return True, begun
        return _receive(address, partial, marker, say, restart=True)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise _unreachable(address, str(reason) or type(error).__name__) from None

    with response:
        is_rest = response.status == 206
        if is_rest and _number_in(r"bytes (\d+)-", response.headers.get("Content-Range")) != begun:
            if restart:
                raise _unreachable(address, "the server sent a different range than requested")
            return _receive(address, partial, marker, say, restart=True)
        have = begun if is_rest else 0
        length = _number_in(r"(\d+)$", response.headers.get("Content-Length"))
        expected = None if length is None else have + length
        of = "" if expected is None else f" of {_mib(expected)}"
        say(f"{'Continuing' if have else 'Downloading'} {address}: {_mib(have)}{of} MiB")
        with partial.open("ab" if is_rest else "wb") as file:
            if not is_rest:  # Not earlier: with the old bytes it would identify a mixture.
                marker.write_text(_marker_of(response), encoding="utf-8")
            is_whole = _copy(response, file.write, have, of, say)
    return is_whole and (expected is None or partial.stat().st_size >= expected), expected


def _copy(
    response: HTTPResponse,
    write: Callable[[bytes], object],
    have: int,
    of: str,
    say: Callable[[str], None],
) -> bool:
    """Write what the server sends; return False if the connection broke."""
    while True:
        try:
            # read1 returns what has been received; read would discard it if the rest is missing.
            block = response.read1(RECEIVE_BYTES)
        except (OSError, HTTPException):
            return False
        if not block:
            return True
        write(block)
        if have // PROGRESS_BYTES != (have + len(block)) // PROGRESS_BYTES:
            say(f"{_mib(have + len(block))}{of} MiB")
        have += len(block)


def _open(address: str, begun: int, marker: Path) -> HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": "ushape"})
    if begun:
        request.add_header("Range", f"bytes={begun}-")
        # If the file has changed since, the server sends the whole file.
        if marker.exists() and (version := marker.read_text(encoding="utf-8")):
            request.add_header("If-Range", version)
    response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    return response


def _marker_of(response: HTTPResponse) -> str:
    """Return what identifies this version of the file; weak tags are not allowed in If-Range."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _forget(partial: Path, marker: Path) -> None:
    partial.unlink(missing_ok=True)
    marker.unlink(missing_ok=True)


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _number_in(pattern: str, header: str | None) -> int | None:
    found = re.search(pattern, header or "")
    return int(found[1]) if found else None


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f}"


def _unreachable(address: str, reason: str) -> DataError:
    return DataError(
        f"{address}: the file cannot be downloaded ({reason}).",
        code="download_failed",
        hint="Check the address and the connection, then run the same command again; the received "
        "data are kept. Or specify another address, or a local archive, with --from.",
    )


BY_HAND = "Or download the archive manually from {page} and specify it with --from."
CREDENTIALS = (
    "Create a token at kaggle.com under Settings, API. Save it as ~/.kaggle/kaggle.json, or set "
    "KAGGLE_USERNAME and KAGGLE_KEY, or KAGGLE_API_TOKEN."
)


class KaggleClient(Protocol):
    """The part of the kagglehub package that is used."""

    def dataset_download(self, handle: str) -> str:
        """Return a folder in the client's cache that contains the unpacked dataset."""
        ...

    def competition_download(self, handle: str, path: str) -> str:
        """Return one file of a competition in the client's cache."""
        ...


def kagglehub() -> KaggleClient:
    """Return the kagglehub package.

    Raises:
        MissingPackageError: if it is not installed.
    """
    client: KaggleClient = require_package(
        "kagglehub", "kaggle", "Downloading from Kaggle (instead of using an archive with --from)"
    )
    return client


def download_from_kaggle(source: Source, client: KaggleClient, name: str | None = None) -> Path:
    """Download a dataset, or a file of a competition, and return it in the client's cache.

    Args:
        name: File of the competition; None: the folder of the dataset.

    Raises:
        ConfigError: if there is no Kaggle account, or the rules were not accepted.
        DataError: if the download fails for another reason.
    """
    try:
        if name is None:
            assert source.dataset is not None
            path = Path(client.dataset_download(source.dataset))
        else:
            assert source.competition is not None
            path = Path(client.competition_download(source.competition, name))
    except Exception as error:  # The client raises errors of many kinds.
        _explain(source, error)
    if not (path.is_dir() if name is None else path.is_file()):
        raise DataError(
            f"The Kaggle client did not create {path}.",
            code="download_failed",
            hint="Run the command again.",
        )
    return path


def _explain(source: Source, error: Exception) -> NoReturn:
    """Raise an error that tells the user what to do."""
    if isinstance(error, UshapeError):
        raise error
    by_hand = BY_HAND.format(page=source.page)
    message = " ".join(str(error).split()) or type(error).__name__
    kind, status = type(error).__name__, _status(error)
    missing = kind in ("UnauthenticatedError", "CredentialError") or status == 401
    if missing or "credential" in message.lower() or "not authenticated" in message.lower():
        raise ConfigError(
            f"Kaggle could not authenticate you: {message}.",
            code="kaggle_credentials",
            hint=f"{CREDENTIALS} {by_hand}",
        ) from None
    if status == 403:
        rules = (
            f"Log in and accept the rules at {source.page}/rules once."
            if source.competition
            else f"Log in and open {source.page}, which may ask for your consent."
        )
        raise ConfigError(
            f"Kaggle denied access to {source.competition or source.dataset}: {message}.",
            code="kaggle_consent",
            hint=f"{rules} If you did, your token may have expired. {CREDENTIALS} {by_hand}",
        ) from None
    if status == 404:
        raise DataError(
            f"Kaggle no longer offers {source.competition or source.dataset}: {message}.",
            code="download_failed",
            hint=f"See {source.page}. You can specify a local archive with --from.",
        ) from None
    raise DataError(
        f"The Kaggle client failed: {message}.",
        code="download_failed",
        hint=f"Check the connection and run the same command again. {by_hand}",
    ) from None


def _status(error: Exception) -> int | None:
    """Return the HTTP status of the response, or the one in the message."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status
    found = re.search(r"\b(401|403|404)\b", str(error))
    return int(found[1]) if found else None
