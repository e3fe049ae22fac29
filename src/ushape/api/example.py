"""Write a generated data set to try ushape on."""

from __future__ import annotations

from pathlib import Path

from ushape.console import Console
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.formatting import pluralize


def example(folder: Path | str, *, count: int = 48, seed: int = 0) -> Path:
    """Writes microscopy-like images of cells with exact masks, to try ushape on."""
    write_data_set(Path(folder), count, SyntheticConfig(), seed)
    Console().say(f"{pluralize(count, 'image')} with masks in {folder}")
    return Path(folder)
