"""What every reader promises of a damaged or hostile file: a DataError with its path, soon."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ushape.errors import DataError

MAX_PIXELS = 2**31
"""Larger images are refused before they are decoded: a small file may claim any size."""

MAX_INFLATION = 4096
"""Bytes that one byte of a file may stand for, beyond SMALL_BYTES."""

SMALL_BYTES = 2**28
"""An image of up to this size may come from a file of any size: an empty mask packs well."""

DAMAGED = "The file is damaged or not what its suffix says: copy it again, or take it out."


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever a library raises on a damaged file into a DataError with the path.

    Their parsers raise nearly everything on random bytes, so all of Exception is meant.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Odd metadata is no reason to refuse pixels.
            yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(
            f"{path}: needs more memory than there is.", hint="Cut the image into parts."
        ) from None
    except Exception as error:
        raise damaged(path, f"cannot be read: {last_line(error)}") from None


def damaged(path: Path, what: str) -> DataError:
    """The error for a file that is broken: to be raised by the caller."""
    return DataError(f"{path}: {what}.", hint=DAMAGED)


def check_claim(path: Path, shape: Sequence[int], value_bytes: int, present_bytes: int) -> None:
    """Refuses what a header claims before memory is asked for it.

    Args:
        shape: All axes, channels too.
        value_bytes: Bytes of one value once decoded.
        present_bytes: Bytes of the file that they are to come from.

    Raises:
        DataError: an axis below 1, more than MAX_PIXELS values, or far more than the file's
            bytes can hold in any compression.
    """
    if not shape or min(shape) < 1:
        raise damaged(path, f"claims the shape {_text_of(shape)}")
    count = math.prod(shape)
    if count > MAX_PIXELS:
        raise DataError(
            f"{path}: claims the shape {_text_of(shape)}, more than {MAX_PIXELS} values.",
            hint="Cut the image into parts.",
        )
    if count * value_bytes > max(SMALL_BYTES, MAX_INFLATION * present_bytes):
        raise damaged(path, f"claims the shape {_text_of(shape)} in {present_bytes} bytes")


def need(module: str, extra: str, path: Path) -> Any:
    """An optional package, imported now.

    Raises:
        DataError: it is not installed; says which extra of ushape brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(
            f"{path}: to read or write it, {module} is needed.",
            hint=f'pip install "ushape[{extra}]" installs it.',
        ) from None


def last_line(error: Exception) -> str:
    """ITK says where in its source it failed first, and what failed last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().rstrip(".")[:300]


def _text_of(shape: Sequence[int]) -> str:
    return " x ".join(str(length) for length in shape)
