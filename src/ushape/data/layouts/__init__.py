"""Forms in which people keep images and masks. A new one is a file and a line in LAYOUTS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ushape.data.layouts import folders, suffix
from ushape.data.layouts.found import Found

LAYOUTS: dict[str, Callable[[Path], Found | None]] = {
    "folders": folders.find,
    "suffix": suffix.find,
}
"""Each returns None where the folder does not have its form."""
