"""Write a generated dataset to try ushape on."""

from __future__ import annotations

from pathlib import Path

from ushape.console import Console
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import check_range
from ushape.formatting import pluralize


def example(folder: Path | str, *, count: int = 48, seed: int = 0, quiet: bool = False) -> Path:
    """Write generated images of cells with exact masks.

    The images resemble microscopy. Use them to try out ushape.

    Args:
        folder: New folder, in which images/ and masks/ are created.
        count: Number of images.
        seed: Random seed; each seed gives different images.
        quiet: Print nothing.

    Raises:
        ConfigError: if there would be no image.
    """
    check_range("count", count, 1, hint="48 images are enough for a first training.")
    write_data_set(Path(folder), count, SyntheticConfig(), seed)
    Console(quiet=quiet).say(f"Wrote {pluralize(count, 'image')} with masks to {folder}")
    return Path(folder)
