"""What was unpacked -> the data set: found, without second copies, one file per section."""

from __future__ import annotations

import shutil
from pathlib import Path

from ushape.errors import DataError
from ushape.fetching.sources import Source

STACKS = {
    "train-volume.tif": "train/images",
    "train-labels.tif": "train/labels",
    "test-volume.tif": "test/images",
}
"""Volumes of the ISBI 2012 archive, and the folder of PNG files that each becomes."""


def arrange(unpacked: Path, source: Source) -> Path:
    """The folder that holds the data set, put in order.

    Raises:
        DataError: it is not in there; it is in there twice, with different files.
    """
    for volume in sorted(unpacked.rglob("train-volume.tif")):
        _split_stacks(volume.parent)
    places = _places(unpacked, source)
    if not places:
        seen = ", ".join(sorted(path.name for path in unpacked.iterdir())[:8]) or "nothing"
        raise DataError(
            f"No {source.masks}, with {' beside '.join(source.folders)}, in what was fetched, "
            f"only {seen}.",
            hint="This is another data set.",
        )
    place = _without_copies(places, source)
    if place != unpacked:
        # What lies around it, such as a licence, comes along.
        for path in unpacked.iterdir():
            if path.is_file() and not (place / path.name).exists():
                path.replace(place / path.name)
    return place


def count_cases(folder: Path, source: Source) -> int:
    """Raises: DataError: images without masks, or the other way round."""
    images, masks = (len(list(folder.glob(glob))) for glob in (source.images, source.masks))
    if images != masks or not masks:
        raise DataError(
            f"{folder} holds {images} images ({source.images}) and {masks} masks ({source.masks}).",
            hint="It is not whole, or not this data set. Move it away and fetch it again.",
        )
    return masks


def _places(unpacked: Path, source: Source) -> list[Path]:
    """Folders in which the data set's own folders lie side by side; the highest first."""
    found = [
        path.parent
        for path in unpacked.rglob(source.folders[0])
        if all((path.parent / name).is_dir() for name in source.folders)
        and any(path.parent.glob(source.masks))
    ]
    return sorted(found, key=lambda path: (len(path.parts), path))


def _without_copies(places: list[Path], source: Source) -> Path:
    """Kaggle's LGG archive holds everything twice; copies of other names are never removed."""
    kept, *others = places
    for other in others:
        if any(other.is_relative_to(kept / name) for name in source.folders):
            continue
        if (missing := _names(other, source) - _names(kept, source)) and (
            _names(kept, source) - _names(other, source)
        ):
            raise DataError(
                f"{kept} and {other} are two different copies: {min(missing)} is only in one.",
                hint="Unpack it by hand, and keep the one that you want.",
            )
        if missing:  # Then the other one has all that this one has, and more.
            kept, other = other, kept
        for name in source.folders:
            shutil.rmtree(other / name)
        if not any(other.iterdir()):
            other.rmdir()
    return kept


def _names(place: Path, source: Source) -> set[str]:
    return {
        path.relative_to(place).as_posix()
        for name in source.folders
        for path in (place / name).rglob("*")
        if path.is_file()
    }


def _split_stacks(folder: Path) -> None:
    """Volumes to numbered sections, bit by bit the same, so that each section is a case."""
    from ushape import io

    for name, below in STACKS.items():
        volume = folder / name
        if not volume.exists():
            continue
        sections = io.read(volume).array
        if sections.ndim != 4 or sections.shape[0] != 1 or sections.dtype != "uint8":
            raise DataError(
                f"{name} has shape {sections.shape} of {sections.dtype}, "
                "not sections of 8-bit grey values.",
                hint="This is another data set.",
            )
        (folder / below).mkdir(parents=True)
        for number, section in enumerate(sections[0]):
            with (folder / below / f"{number:02d}.png").open("wb") as file:
                io.WRITERS[".png"](file, section, None, ".png")
        volume.unlink()
