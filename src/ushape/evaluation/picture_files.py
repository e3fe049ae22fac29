"""Numbered files of pictures in the run folder, which the report reads, and data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ushape.errors import RunError
from ushape.io.files import read_sealed_json, write_sealed_json

Picture = TypeVar("Picture")

WEBP_URI = "data:image/webp;base64,"
"""Beginning of the data URI of a picture."""


def write_picture_files(folder: Path, pictures: Iterable[dict[str, Any]]) -> None:
    """Write one JSON file for each picture atomically, replacing those of an earlier call.

    Args:
        pictures: Pictures as JSON objects, in which images are data URIs.
    """
    for old in folder.glob("[0-9]" * 5 + ".json"):
        old.unlink()
    for number, picture in enumerate(pictures, start=1):
        write_sealed_json(folder / f"{number:05}.json", picture)


def read_picture_files(
    folder: Path, decode: Callable[[Mapping[str, Any]], Picture]
) -> list[Picture]:
    """Read the pictures of `write_picture_files` in order; none if the folder does not exist.

    Args:
        decode: Converts a JSON object to a picture. It raises OSError, ValueError, TypeError,
            KeyError or AttributeError if the content is invalid.

    Raises:
        RunError: if a file is damaged or not such a picture.
    """
    return [_read(path, decode) for path in sorted(folder.glob("*.json"))]


def _read(path: Path, decode: Callable[[Mapping[str, Any]], Picture]) -> Picture:
    hint = "Run `ushape evaluate RUN` to write the pictures again."
    stored = read_sealed_json(path, RunError, code="invalid_picture", hint=hint)
    try:
        return decode(stored)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(
            f"{path} is not a picture written by ushape ({type(error).__name__}: {error}).",
            code="invalid_picture",
            hint=hint,
        ) from None


def encode_webp(plane: np.ndarray, **options: object) -> str:
    """Encode an image (h, w) or (h, w, 3) uint8 as a data URI."""
    content = io.BytesIO()
    Image.fromarray(plane).save(content, format="WEBP", **options)
    return WEBP_URI + base64.b64encode(content.getvalue()).decode()


def decode_webp(uri: str) -> np.ndarray:
    """Decode a data URI to (h, w, 3) uint8."""
    content = base64.b64decode(uri.removeprefix(WEBP_URI), validate=True)
    with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
        return np.asarray(image.convert("RGB"))


def check_webp(uri: Any) -> str:
    """Return a data URI as it is.

    Raises:
        ValueError: if it is not one of `encode_webp`.
        TypeError, AttributeError: if it is not text.
    """
    base64.b64decode(uri.removeprefix(WEBP_URI), validate=True)
    if not uri.startswith(WEBP_URI):
        raise ValueError("a picture is not stored as WebP")
    return str(uri)
