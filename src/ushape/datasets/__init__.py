"""The data sets that can be fetched. A new one is an entry in SOURCES."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ushape.errors import DataError

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip or tar that a source offers."""

    name: str
    """Of a competition's file; of a web address, the last part."""

    size_bytes: int | None = None
    """None: the size that the server states is checked."""

    sha256: str | None = None
    """Hexadecimal; None: nobody has published one."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set comes from, and what it looks like when it is whole."""

    terms: str
    """License and citation, in a line."""

    folders: tuple[str, ...]
    """Folders that lie side by side in it; where they are, the data are."""

    images: str
    """Glob below the data set."""

    masks: str
    """Glob below the data set."""

    cases: int
    """Annotated images in the whole data set."""

    most_bytes: int
    """Unpacked; an archive that holds more is refused."""

    dataset: str | None = None
    """Handle of a Kaggle data set."""

    competition: str | None = None
    """Handle of a Kaggle competition."""

    address: str | None = None
    """Official web address; its archive is the only one in `archives`."""

    archives: tuple[Archive, ...] = ()

    @property
    def page(self) -> str:
        """Where a person reads about it."""
        if self.competition:
            return f"https://www.kaggle.com/c/{self.competition}"
        if self.dataset:
            return f"https://www.kaggle.com/datasets/{self.dataset}"
        return self.address or ""


SOURCES = {
    "lgg": Source(
        terms="Brain MRI of TCGA-LGG. License: CC BY-NC-SA 4.0 as commonly cited; see the Kaggle "
        "page. Cite Buda et al. 2019 and Mazurowski et al. 2017.",
        folders=("kaggle_3m",),
        images="kaggle_3m/*/*[0-9].tif",
        masks="kaggle_3m/*/*_mask.tif",
        cases=3929,
        most_bytes=8 * GIB,  # Two copies of 3929 uncompressed pairs are about 2 GiB.
        dataset="mateuszbuda/lgg-mri-segmentation",
    ),
    "carvana": Source(
        terms="Cars. License: the rules of Kaggle's Carvana Image Masking Challenge (2017).",
        folders=("train", "train_masks"),
        images="train/*.jpg",
        masks="train_masks/*_mask.gif",
        cases=5088,
        most_bytes=8 * GIB,
        competition="carvana-image-masking-challenge",
        archives=(Archive(name="train.zip"), Archive(name="train_masks.zip")),
    ),
    "isbi2012": Source(
        terms="EM sections. License: none stated with the data; the authors allowed research use. "
        "Cite Cardona et al. 2010 and Arganda-Carreras et al. 2015.",
        folders=("train",),
        images="train/image*/[!.]*",
        masks="train/label*/[!.]*",
        cases=30,
        most_bytes=GIB,
        # The challenge's server is gone; its page points here:
        # https://imagej.net/events/isbi-2012-segmentation-challenge
        address="https://downloads.imagej.net/ISBI-2012-challenge.zip",
        archives=(Archive(name="ISBI-2012-challenge.zip"),),
    ),
}


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
        # What lies around it, such as a license, comes along.
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
                "not sections of 8-bit gray values.",
                hint="This is another data set.",
            )
        (folder / below).mkdir(parents=True)
        for number, section in enumerate(sections[0]):
            with (folder / below / f"{number:02d}.png").open("wb") as file:
                io.WRITERS[".png"](file, section, None, ".png")
        volume.unlink()
