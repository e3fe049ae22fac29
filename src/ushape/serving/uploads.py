"""Receive images: write the files of a form to a private folder, and check what they claim."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ushape import io
from ushape.errors import DataError, RunError
from ushape.io import dicom
from ushape.io.files import read_head
from ushape.io.lock import LOCK_FILE, locked
from ushape.serving.limits import Limits
from ushape.serving.refusals import Refusal

PREFIX = "ushape-serve-"
"""Beginning of the names of the folders of servers in the system's folder for temporary files."""

FIELD = "image"
"""Name of the field of the form that has the images."""

MAX_IMAGES = 64
"""Largest number of images in a request."""

WRITTEN_BYTES = 1 << 20
"""Bytes that are collected before they are written."""

HEAD_BYTES = 4096
"""Bytes at the beginning of a file by which its format is recognized."""


@dataclass(frozen=True)
class Upload:
    """An image that was received."""

    path: Path
    """File, whose suffix is that of its format."""

    name: str
    """Name that the client gave to it, without folders, suffix and special characters; it never
    becomes part of a path."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a new folder that only this user can read, and remove it at the end.

    Folders of servers that were killed are removed first.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path) -> None:
    """Remove the folders of servers of this user that no longer run."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(RunError, OSError):  # RunError: its server runs.
            if _is_private(folder) and (folder / LOCK_FILE).exists():
                with locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_private(folder: Path) -> bool:
    """Return whether a folder, not a link, is one in which only this user can have made files."""
    facts = folder.lstat()
    is_own = sys.platform == "win32" or (
        facts.st_uid == os.geteuid() and not stat.S_IMODE(facts.st_mode) & 0o077
    )
    return is_own and stat.S_ISDIR(facts.st_mode)


async def receive_images(
    chunks: AsyncIterator[bytes],
    content_type: str,
    folder: Path,
    on_image: Callable[[int], object] = lambda number: None,
) -> list[Upload]:
    """Write the images of a form, as they arrive, into separate folders.

    Args:
        chunks: Parts of the body of the request.
        content_type: Header Content-Type of the request.
        folder: Existing empty folder.
        on_image: Function that receives the number of each image, from 1 on, before its content
            is received.

    Raises:
        Refusal: if the body is not a form with one or more files in the field `image`.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refusal(
            415,
            "not_a_form",
            "The request is not a form (multipart/form-data).",
            f"Send each image as a file in the field {FIELD}: curl -F {FIELD}=@FILE URL",
        )
    form = _Form(folder, on_image)
    try:
        parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": form.begin_part,
                "on_part_data": form.add_data,
                "on_part_end": form.end_part,
                "on_header_field": form.add_name,
                "on_header_value": form.add_value,
                "on_header_end": form.end_header,
                "on_headers_finished": form.end_headers,
                "on_end": form.end,
            },
        )
        async for chunk in chunks:
            parser.write(chunk)
            if form.waiting_bytes >= WRITTEN_BYTES:
                await asyncio.to_thread(form.write)
        await asyncio.to_thread(form.write)
    except FormParserError:
        raise _invalid("it cannot be parsed") from None
    finally:
        form.close()
    if not form.is_complete:
        raise _invalid("it is cut off")
    if not form.names:
        raise Refusal(
            400, "no_image", "The form has no images.", f"Send each as a file in the field {FIELD}."
        )
    return await asyncio.to_thread(form.finish)


def check_header(path: Path, limits: Limits) -> int:
    """Check the size in the header of a file before it is decompressed.

    Returns:
        Number of pixels, channels not counted.

    Raises:
        DataError: if the header is damaged, or does not contain the size.
        MissingPackageError: if a package that reads the format is not installed.
        Refusal: if there are too many pixels.
    """
    io.check_packages([path])
    size = io.read_size(path)
    if size is None and not io.is_dicom(path):
        raise DataError(
            f"{path}: the size of images in this format is unknown before decompression.",
            code="size_unknown",
            hint="Send it in another format, such as TIFF or PNG.",
        )
    if size is None:
        (header, *_) = dicom.read_headers(path)
        size = tuple(
            int(header.get(name) or default)
            for name, default in (("NumberOfFrames", 1), ("Rows", 0), ("Columns", 0))
        )
    if not size or min(size) < 1:
        raise DataError(
            f"{path}: the image has no pixels.",
            code="no_pixels",
            hint="Send an image with pixels.",
        )
    largest = limits.max_px if io.is_read_in_bands(path) else limits.max_unpacked_px
    if math.prod(size) > largest:
        raise Refusal(
            413,
            "image_too_large",
            f"The image has {math.prod(size)} pixels; the limit of this server is {largest} for "
            f"{io.suffix_of(path)}.",
            "Divide the image into smaller ones, or send it as TIFF, which has a higher limit.",
        )
    return math.prod(size)


def suffix_of_content(head: bytes, name: str) -> str:
    """Return the suffix of the format that the first bytes of a file show; '' if it is unknown.

    The name decides only what the bytes do not: whether a packed file is .npz or .nii.gz.
    """
    name = name.lower()
    if (suffix := io.suffix_of_start(head)) is not None:
        return suffix
    if re.match(rb"P[1-6]\s", head):
        return ".pnm"
    if head[128:132] == b"DICM":
        return ".dcm"
    if head.startswith(b"NRRD000"):
        return ".nrrd"
    if head[344:348] in (b"n+1\0", b"n+2\0") or head[4:8] == b"n+2\0":
        return ".nii"
    if head.startswith(b"\x1f\x8b") and name.endswith(".nii.gz"):
        return ".nii.gz"
    if head.startswith(b"PK\x03\x04") and name.endswith(".npz"):
        return ".npz"
    return ".mha" if re.match(rb"\s*(ObjectType|NDims)\s*=", head) else ""


@dataclass
class _Form:
    """State of a form while it is parsed. The parser calls the methods; `write` empties it."""

    folder: Path
    on_image: Callable[[int], object]
    names: list[str] = field(default_factory=list)
    is_complete: bool = False
    waiting_bytes: int = 0
    _headers: dict[str, str] = field(default_factory=dict)
    _name: bytes = b""
    _value: bytes = b""
    _waiting: list[tuple[int, bytes]] = field(default_factory=list)
    _file: BinaryIO | None = None
    _file_number: int = -1

    def begin_part(self) -> None:
        self._headers = {}

    def add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name = self._value = b""

    def end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != FIELD or b"filename" not in options:
            raise Refusal(
                400,
                "wrong_field",
                f"The form has a field that is not a file named {FIELD}.",
                f"Send each image as a file in the field {FIELD}: curl -F {FIELD}=@FILE URL",
            )
        if len(self.names) == MAX_IMAGES:
            raise Refusal(
                413,
                "too_many_images",
                f"The form has more than {MAX_IMAGES} images.",
                "Send them in several requests.",
            )
        self.on_image(len(self.names) + 1)
        self.names.append(options[b"filename"].decode("utf-8", "replace"))

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self._waiting.append((len(self.names) - 1, data[start:end]))
        self.waiting_bytes += end - start

    def end_part(self) -> None:
        pass

    def end(self) -> None:
        self.is_complete = True

    def write(self) -> None:
        """Write what was parsed."""
        for number, data in self._waiting:
            if number != self._file_number:
                self.close()
                self._place(number).parent.mkdir(exist_ok=True)
                self._file, self._file_number = self._place(number).open("wb"), number
            assert self._file is not None
            self._file.write(data)
        self._waiting.clear()
        self.waiting_bytes = 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> list[Upload]:
        """Give each file the suffix of its format.

        Raises:
            Refusal: if a file is empty, or of no known format.
        """
        found = []
        for number, name in enumerate(self.names):
            path = self._place(number)
            head = read_head(path, HEAD_BYTES)
            if not head:
                raise Refusal(422, "damaged_file", f"Image {number + 1} is empty (0 bytes).")
            suffix = suffix_of_content(head, name)
            if not suffix:
                raise Refusal(
                    415,
                    "unknown_format",
                    f"The format of image {number + 1} is not supported.",
                    "Send PNG, JPEG, GIF, BMP, WebP, PNM, TIFF, NumPy, NIfTI, NRRD, MHA or DICOM.",
                )
            found.append(Upload(path.rename(path.with_name(f"image{suffix}")), plain_name(name)))
        return found

    def _place(self, number: int) -> Path:
        return self.folder / str(number) / "received"


def plain_name(name: str) -> str:
    """Return the name of a file without folders, suffix and special characters."""
    last = re.split(r"[\\/]", name)[-1][-255:]
    stem = io.stem_of(Path(last)) if last.strip(".") else ""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:60].strip("_") or "image"


def _invalid(problem: str) -> Refusal:
    return Refusal(
        400,
        "invalid_form",
        f"The form is invalid: {problem}.",
        "Create the form with an HTTP library.",
    )
