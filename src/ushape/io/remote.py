"""Files of object stores and web servers, which are named by URLs such as s3://bucket/folder.

`fsspec` reads and writes them; the package of a protocol, such as s3fs, is installed by the user.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from ushape.errors import (
    ConfigError,
    DataError,
    MissingPackageError,
    RunError,
    TemporaryError,
    require_package,
)
from ushape.io.files import last_line, replacing
from ushape.io.remote_errors import explain, name_error, without_queries

T = TypeVar("T")

URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?P<rest>[^/].*)", re.DOTALL)
"""A URL, also one of which `Path` has removed a slash. Drives of Windows have a single letter."""

NO_SERVER = re.compile("[A-Za-z][A-Za-z0-9+.-]+:(/{0,2}|/{3}.*)", re.DOTALL)
"""A URL that ends after its protocol, or has a slash in place of the server."""

LOCAL_PROTOCOLS = ("file", "local")
WEB_PROTOCOLS = ("http", "https")
"""Protocols without folders."""

WEB_FILE = re.compile(r"[^/]+://[^/]+/([^?#]*/)?[^/?#]+([?#].*)?", re.DOTALL)
"""A URL of a web server with the name of a file."""

ALIASES = {"s3a": "s3", "gcs": "gs", "abfs": "az"}
"""Other names of protocols, so that equal files have equal URLs."""

TRANSFERS = 8
"""Number of files that are transferred at the same time."""

PATIENCE_S = 120.0
"""Time for which a failing transfer is repeated, in seconds."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""Time before a failed transfer is repeated, which doubles each time, in seconds."""

SPARE_BYTES = 1 << 30
"""Space of a disk that is left free, in bytes."""

MAX_WEB_BYTES = 1 << 34
"""Largest file that is read from a web server, which may report any size."""


def url_of(path: Path | str) -> str | None:
    """Return the URL that a path is meant as, or None if it is a local path.

    `Path("s3://bucket/x")` is `s3:/bucket/x`; it is a local path only if a folder `s3:` exists.

    Raises:
        ConfigError: if it is a URL without a bucket or server.
    """
    text = path.as_posix() if isinstance(path, Path) else path
    if NO_SERVER.fullmatch(text) and not Path(text.partition("/")[0]).exists():
        raise ConfigError(
            f"{text} does not contain a bucket or a server.",
            code="no_bucket",
            hint="Write s3://BUCKET/FOLDER. Paths of local files have no protocol.",
        )
    match = URL.fullmatch(text)
    if match is None or ("://" not in text and Path(f"{match['protocol']}:").exists()):
        return None
    protocol = match["protocol"].lower()
    return f"{ALIASES.get(protocol, protocol)}://{match['rest']}"


def shown(url: str) -> str:
    """Return a URL without user and password, trailing slashes, and the query of a web address."""
    is_web = url.partition("://")[0].lower() in WEB_PROTOCOLS
    address = url.partition("?")[0] if is_web else url  # In object stores, names may contain "?".
    return re.sub("(?<=://)[^/]*@", "", address.rstrip("/"))


@dataclass(frozen=True)
class RemoteFile:
    """A file below a URL."""

    name: str
    """Path below the URL, separated by '/'; its own name if the URL is a file."""

    size: int | None
    """Number of bytes; None if the server does not report it."""

    version: str
    """Text that changes with the content: the entity tag and the time of the last change."""

    modified_s: int = 1_000_000_000
    """Time of the last change in seconds since 1970; a fixed one if it is unknown."""

    @property
    def time_ns(self) -> int:
        """Modification time of a local copy: that of the file, with a checksum of its version."""
        return self.modified_s * 10**9 + zlib.crc32(self.version.encode()) % 10**7 * 100

    def is_copied(self, target: Path) -> bool:
        """Return whether `fetch` has written this version of the file to a path."""
        with suppress(OSError):
            stat = target.stat()
            return stat.st_mtime_ns == self.time_ns and self.size in (None, stat.st_size)
        return False


class RemoteFolder:
    """A folder or file at a URL. Safe to use from several threads.

    Transfers that fail for a reason that may pass, such as a server that restarts, are repeated.

    Args:
        url: URL, such as s3://bucket/folder.
        patience_s: Time after which a transfer that fails is given up, in seconds.

    Raises:
        ConfigError: if the protocol is unknown, or the URL contains a password.
        MissingPackageError: if the package of the protocol is not installed.
    """

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S):
        # Slashes after the bucket are not part of a name, and fsspec leaves them out.
        url = re.sub("(?<=[^:/])(/+)", "/", url, count=1)
        self.url, self._patience_s = shown(url), patience_s
        self.is_web = self.is_file = url.split("://")[0] in WEB_PROTOCOLS
        self.left_out: list[str] = []
        self._fs = _open_filesystem(url)
        self._root = url if self.is_web else str(self._fs._strip_protocol(url)).rstrip("/")
        self._is_given_up = threading.Event()

    def list_files(self) -> dict[str, RemoteFile]:
        """Return the files below the URL by their names, sorted; or the file that the URL is.

        Names that cannot be those of local files below a folder are left out; `left_out` has those
        that are not placeholders of folders.

        Raises:
            DataError: if there is no such bucket, or the URL of a web server names no file.
            UshapeError: if the server cannot be reached, or refuses the request.
        """
        if self.is_web and not WEB_FILE.fullmatch(self._root):
            raise DataError(
                f"{self.url}: a web server does not list the files of a folder.",
                code="remote_not_listed",
                hint="Specify a single file, or download the data and specify the local folder.",
            )
        if self.is_web:
            found = {self._root: self._repeat(lambda: self._fs.info(self._root), self.url)}
        else:
            found = self._repeat(lambda: self._fs.find(self._root, detail=True), self.url)
        listed = {}
        self.left_out = []
        for path, info in sorted(found.items()):
            is_root = path == self._root
            name = self._own_name() if is_root else path[len(self._root) + 1 :]
            self.is_file |= is_root
            if info.get("type") == "directory" or name.endswith("/"):
                continue
            if _is_usable(name):
                listed[name] = _describe(name, info)
            else:
                self.left_out.append(name)
        return listed

    def _own_name(self) -> str:
        """Return the name of the file that the URL is."""
        name = self.url.rpartition("/")[2]
        return _local_name(name) if self.is_web or not _is_usable(name) else name

    def address_of(self, name: str) -> str:
        """Return the URL of a file, without its query."""
        return self.url if self.is_file else f"{self.url}/{name}"

    def fetch(self, file: RemoteFile, target: Path) -> None:
        """Copy a file to a local path, atomically; its modification time encodes its version.

        Raises:
            DataError: if the file no longer exists, may not be read, or has another size than
                listed, or if a local file cannot have its name.
            UshapeError: if the server cannot be reached, or refuses the request.
        """
        source = self._path_of(file.name)
        where = self.address_of(file.name)

        def copy() -> None:
            with replacing(target) as own:
                if self.is_web:
                    self._copy_from_web(source, own.write)
                else:
                    self._fs.get_file(source, str(own.name))
                own.flush()
                size = os.fstat(own.fileno()).st_size
                if file.size not in (None, size):
                    self._refuse_changed(file)
                    raise ConnectionError(f"{size} of {file.size} bytes were received")

        try:
            self._repeat(copy, where)
        except OSError as error:
            raise name_error(error, file.name) or error from None
        except ConfigError as error:
            # Servers of the web are independent of each other, so one that asks for a password
            # does not concern the other images.
            is_of_file = error.code == "remote_denied" or self.is_web
            if not is_of_file:
                raise
            raise DataError(error.message, code=error.code, hint=error.hint) from None
        os.utime(target, ns=(file.time_ns, file.time_ns))

    def _refuse_changed(self, file: RemoteFile) -> None:
        """Raise DataError if a file has another size now than when it was listed."""
        now = _describe(file.name, self._fs.info(self._path_of(file.name)))
        if now.size != file.size:
            raise DataError(
                f"{self.address_of(file.name)} has changed since the files were listed.",
                code="remote_changed",
                hint="Run the same command again when no other program writes to the folder.",
            )

    def fetch_all(
        self, files: Iterable[RemoteFile], folder: Path, on_file: Callable[[], object]
    ) -> None:
        """Copy files to the same names below a folder, several at a time.

        Args:
            on_file: Function that is called after each file.
        """
        with ThreadPoolExecutor(TRANSFERS) as pool:
            for _ in _results(pool, lambda one: self.fetch(one, folder / one.name), files):
                on_file()

    def put(self, source: Path, name: str) -> None:
        """Write a local file to a name below the URL, as a whole."""
        target = self._path_of(name)
        self._repeat(lambda: self._fs.put_file(str(source), target), self.address_of(name))

    def put_all(self, files: Mapping[str, Path]) -> None:
        """Write local files to names below the URL, several at a time."""
        with ThreadPoolExecutor(TRANSFERS) as pool:
            for _ in _results(pool, lambda one: self.put(one[1], one[0]), files.items()):
                pass

    def put_bytes(self, content: bytes, name: str) -> None:
        """Write a small file, as a whole."""
        target = self._path_of(name)
        self._repeat(lambda: self._fs.pipe_file(target, content), self.address_of(name))

    def read_bytes(self, name: str) -> bytes:
        """Return the content of a small file."""
        source = self._path_of(name)
        found = self._repeat(lambda: self._fs.cat_file(source), self.address_of(name))
        return bytes(found)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

        def remove() -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path_of(name))

        self._repeat(remove, self.address_of(name))

    def give_up(self) -> None:
        """Begin no transfer any more, and do not repeat those in progress if they fail."""
        self._is_given_up.set()

    def _path_of(self, name: str) -> str:
        return self._root if self.is_file else f"{self._root}/{name}"

    def _copy_from_web(self, source: str, write: Callable[[bytes], object]) -> None:
        """Copy a file whose size a server need not report."""
        received = 0
        with self._fs.open(source, "rb", block_size=0) as file:
            while block := file.read(1 << 20):
                received += len(block)
                if received > MAX_WEB_BYTES:
                    raise DataError(
                        f"{self.url}: the file is larger than {MAX_WEB_BYTES >> 30} GiB.",
                        code="remote_too_large",
                        hint="Download it manually, and specify the local file.",
                    )
                write(block)

    def _repeat(self, call: Callable[[], T], where: str) -> T:
        """Return what a call returns; repeat it while it fails for a reason that may pass.

        Raises:
            TemporaryError: if it fails for longer than the patience, or was given up.
            UshapeError: if it fails for another reason.
        """
        deadline, pause_s = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            if self._is_given_up.is_set():
                raise TemporaryError(
                    f"{where}: the transfer was canceled.",
                    code="remote_canceled",
                    hint="Run the same command again to continue.",
                )
            try:
                return call()
            except Exception as error:
                if (known := explain(error, where)) is not None:
                    raise known from None
                if time.monotonic() + pause_s > deadline:
                    raise TemporaryError(
                        f"{where}: the server could not be reached for {self._patience_s:.0f} "
                        f"seconds ({without_queries(error)}).",
                        code="remote_unreachable",
                        hint="The transferred data are kept. Check the connection and the address "
                        "of the server (AWS_ENDPOINT_URL), and run the same command again to "
                        "continue.",
                    ) from None
            self._is_given_up.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def require_space(folder: Path, needed_bytes: int, what: str, hint: str) -> None:
    """Check that files fit on the disk of a folder.

    Raises:
        RunError: if they do not.
    """
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    if needed_bytes > free:
        raise RunError(
            f"{what} needs {needed_bytes / 1e9:.1f} GB in {folder}, where "
            f"{max(0, free) / 1e9:.1f} GB may be used.",
            code="remote_too_large",
            hint=hint,
        )


def _results(
    pool: ThreadPoolExecutor, function: Callable[[T], object], items: Iterable[T]
) -> Iterator[object]:
    """Yield the results of a function; after an exception, begin no more calls."""
    futures = [pool.submit(function, item) for item in items]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def _open_filesystem(url: str) -> Any:
    protocol, _, rest = url.partition("://")
    if "@" in rest.partition("/")[0]:
        raise ConfigError(
            f"A {protocol}:// address contains a user name or a password.",
            code="credentials_in_url",
            hint="Omit it. Set the environment variables of the provider, such as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the configuration file of fsspec.",
        )
    if protocol in LOCAL_PROTOCOLS:
        raise ConfigError(
            f"{shown(url)} is an address of a local file.",
            code="unknown_protocol",
            hint="Specify the path without file://.",
        )
    fsspec = require_package("fsspec", "remote", f"Reading {protocol}:// addresses")
    options = {"skip_instance_cache": True, "use_listings_cache": False}
    try:
        return fsspec.filesystem(protocol, **options)
    except ValueError:
        raise ConfigError(
            f"{shown(url)}: the protocol {protocol} is unknown.",
            code="unknown_protocol",
            hint="Known protocols are s3, gs, http, https, and other protocols of fsspec.",
        ) from None
    except ImportError as error:
        install = {"s3": 'pip install "ushape[remote]"', "gs": "pip install gcsfs"}.get(protocol)
        raise MissingPackageError(
            f"{shown(url)} needs a package that is not installed ({last_line(error)}).",
            hint=f"Install it with: {install}" if install else "Install this package.",
        ) from None


def _local_name(name: str) -> str:
    """Return the last part of a URL as a local file may be named."""
    return re.sub(r"[^\w.+ -]", "_", unquote(name)).lstrip(".") or "file"


def _is_usable(name: str) -> bool:
    """Return whether a name stays below a folder; object stores allow any text."""
    parts = name.replace("\\", "/").split("/")
    return "\0" not in name and not {"", ".", ".."} & set(parts) and not (os.sep == "\\" in name)


def _describe(name: str, info: Mapping[str, Any]) -> RemoteFile:
    times = (info.get(key) for key in ("LastModified", "mtime", "updated", "created"))
    changed = next((one for one in times if one is not None), None)
    tags = (info.get(key) for key in ("ETag", "etag", "md5Hash", "generation"))
    tag = next((str(one) for one in tags if one is not None), "")
    seconds = changed.timestamp() if isinstance(changed, datetime) else changed
    known = {"modified_s": int(seconds)} if isinstance(seconds, (int, float)) else {}
    return RemoteFile(name, info.get("size"), f"{tag} {changed or ''}".strip(), **known)
