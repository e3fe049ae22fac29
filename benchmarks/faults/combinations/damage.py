"""Damage: a change to the files, and the finding that must name it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from combinations.images import itk, npy, pillow
from combinations.layouts import CLASS_NAMES
from combinations.masks import COLORS, MaskForm
from combinations.scene import SIDE, Truth


@dataclass
class Folder:
    """A data set that was written, before it is damaged."""

    root: Path
    places: dict[int, tuple[Path, Path]]
    truth: Truth
    form: MaskForm
    broken: set[int] = field(default_factory=set)
    """Indices of the pairs that cannot be used."""

    copies: dict[int, int] = field(default_factory=dict)
    """Indices of the pairs that were replaced by another pair."""


def _none(folder: Folder, rng: random.Random) -> None:
    pass


def _junk(folder: Folder, rng: random.Random) -> None:
    """Files that every folder collects change nothing."""
    image, mask = folder.places[0]
    (image.parent / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (mask.parent / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder.root / "README.txt").write_text("Images of cells.\n")
    (folder.root / "LICENSE").write_text("CC BY 4.0\n")


def _class_table(folder: Folder, rng: random.Random) -> None:
    """A table of the classes, by color if the masks have no numbers."""
    names = folder.truth.names = CLASS_NAMES[: folder.form.classes]
    if folder.form.are_colors:
        colors = [",".join(map(str, color)) for color in COLORS[: len(names)].tolist()]
        rows = [f"{name}:{color}::" for name, color in zip(names, colors, strict=True)]
        text = "\n".join(["# label:color_rgb:parts:actions", *rows, ""])
        (folder.root / "labelmap.txt").write_text(text)
    else:
        (folder.root / "classes.txt").write_text("\n".join([*names, ""]))


def _truncated(folder: Folder, rng: random.Random) -> None:
    index = rng.randrange(len(folder.places))
    path = folder.places[index][0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    _break(folder, index, "unreadable")


def _zero_bytes(folder: Folder, rng: random.Random) -> None:
    index = rng.randrange(len(folder.places))
    folder.places[index][1].write_bytes(b"")
    _break(folder, index, "zero_bytes")


def _other_size(folder: Folder, rng: random.Random) -> None:
    index = rng.randrange(len(folder.places))
    mask = np.zeros((SIDE + 31, SIDE + 5), dtype=np.uint8)
    path = folder.places[index][1]
    form = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF"}.get(path.suffix)
    if form is not None:
        path.write_bytes(pillow(mask, form))
    elif path.suffix == ".npy":
        path.write_bytes(npy(mask))
    else:
        suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
        path.write_bytes(itk(np.stack([mask] * 7), suffix).content)
    _break(folder, index, "size")


def _no_mask(folder: Folder, rng: random.Random) -> None:
    index = rng.randrange(len(folder.places))
    folder.places[index][1].unlink()
    _break(folder, index, "unpaired")
    folder.truth.pairs -= 1


def _copy(folder: Folder, rng: random.Random) -> None:
    """The same image and mask in two groups."""
    first, last = folder.places[0], folder.places[len(folder.places) - 1]
    if first[0].suffix == last[0].suffix and first[1].suffix == last[1].suffix:
        for original, copy in zip(first, last, strict=True):
            copy.write_bytes(original.read_bytes())
        parts = {folder.truth.parts.get(str(image)) for image in (first[0], last[0])}
        folder.truth.finding = "duplicate_across_groups" if len(parts) == 1 else "split"
        folder.truth.groups = None
        folder.copies[len(folder.places) - 1] = 0


DAMAGES: dict[str, Callable[[Folder, random.Random], None]] = {
    "sound": _none,
    "further files": _junk,
    "class table": _class_table,
    "truncated image": _truncated,
    "empty mask file": _zero_bytes,
    "mask of another size": _other_size,
    "image without mask": _no_mask,
    "copied image": _copy,
}


def _break(folder: Folder, index: int, finding: str) -> None:
    folder.broken.add(index)
    folder.truth.finding = finding
    image = folder.places[index][0]
    name = image.parent.name if image.stem == "image" else image.name
    folder.truth.culprit = name.partition(".")[0].removesuffix("_0000")
