"""Datasets that can be downloaded by name. To add one, add an entry to SOURCES."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ushape.errors import DataError

GIB = 1 << 30
"""Bytes of a gibibyte."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip or tar file of a source."""

    name: str
    """Name of the file of a competition, or last part of the web address."""

    size_bytes: int | None = None
    """Expected size; None: the size that the server reports."""

    sha256: str | None = None
    """Expected checksum, hexadecimal; None if none is published."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Source of a dataset, and how to recognize that it is complete."""

    terms: str
    """License and citation."""

    folders: tuple[str, ...]
    """Names of the folders of the dataset, which have the same parent folder."""

    images: str
    """Glob pattern of the images below the dataset folder."""

    masks: str
    """Glob pattern of the masks below the dataset folder."""

    cases: int
    """Number of annotated images in the complete dataset."""

    most_bytes: int
    """Largest accepted unpacked size."""

    dataset: str | None = None
    """Handle of a Kaggle dataset."""

    competition: str | None = None
    """Handle of a Kaggle competition."""

    address: str | None = None
    """Official web address of the only archive in `archives`."""

    archives: tuple[Archive, ...] = ()

    @property
    def page(self) -> str:
        """Address of a web page about the dataset."""
        if self.competition:
            return f"https://www.kaggle.com/c/{self.competition}"
        if self.dataset:
            return f"https://www.kaggle.com/datasets/{self.dataset}"
        return self.address or ""


SOURCES = {
    "lgg": Source(
        terms="Brain MRI of TCGA-LGG. License: commonly cited as CC BY-NC-SA 4.0; see the Kaggle "
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
        terms="EM sections. License: none specified with the data; the authors allowed research "
        "use. Cite Cardona et al. 2010 and Arganda-Carreras et al. 2015.",
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
"""Sources by the name of the dataset."""

STACKS = {
    "train-volume.tif": "train/images",
    "train-labels.tif": "train/labels",
    "test-volume.tif": "test/images",
}
"""Volumes of the ISBI 2012 archive, and the folders of PNG files they are converted to."""


def arrange(unpacked: Path, source: Source) -> Path:
    """Rearrange the content of an unpacked archive, and return the folder of the dataset.

    Raises:
        DataError: if the dataset is not found, or there are two copies with different files.
    """
    for volume in sorted(unpacked.rglob("train-volume.tif")):
        _split_stacks(volume.parent)
    places = _places(unpacked, source)
    if not places:
        seen = ", ".join(sorted(path.name for path in unpacked.iterdir())[:8]) or "nothing"
        raise DataError(
            f"The archive does not contain the folders {', '.join(source.folders)} with masks "
            f"{source.masks}, only {seen}.",
            code="unexpected_dataset",
            hint="This is a different dataset.",
        )
    place = _without_copies(places, source)
    if place != unpacked:
        # Files around it, such as a license, are kept.
        for path in unpacked.iterdir():
            if path.is_file() and not (place / path.name).exists():
                path.replace(place / path.name)
    return place


def count_cases(folder: Path, source: Source) -> int:
    """Return the number of pairs of image and mask.

    Raises:
        DataError: if there are images without masks, or masks without images.
    """
    images, masks = (len(list(folder.glob(glob))) for glob in (source.images, source.masks))
    if images != masks or not masks:
        raise DataError(
            f"{folder} contains {images} images ({source.images}) and {masks} masks "
            f"({source.masks}).",
            code="unexpected_dataset",
            hint="The dataset is incomplete, or a different one. Move it to another folder and "
            "fetch it again.",
        )
    return masks


def _places(unpacked: Path, source: Source) -> list[Path]:
    """Return the parent folders of the dataset's folders, the topmost first."""
    found = [
        path.parent
        for path in unpacked.rglob(source.folders[0])
        if all((path.parent / name).is_dir() for name in source.folders)
        and any(path.parent.glob(source.masks))
    ]
    return sorted(found, key=lambda path: (len(path.parts), path))


def _without_copies(places: list[Path], source: Source) -> Path:
    """Remove the second copy in Kaggle's LGG archive, and return the folder that is kept."""
    kept, *others = places
    for other in others:
        if any(other.is_relative_to(kept / name) for name in source.folders):
            continue
        if (missing := _names(other, source) - _names(kept, source)) and (
            _names(kept, source) - _names(other, source)
        ):
            raise DataError(
                f"{kept} and {other} are different copies: only one contains {min(missing)}.",
                code="unexpected_dataset",
                hint="Unpack the archive manually, and keep one of the copies.",
            )
        if missing:  # The other copy contains all files of this one, and more.
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
    """Convert volumes to numbered PNG sections without loss, so that each section is a case."""
    from ushape import io

    for name, below in STACKS.items():
        volume = folder / name
        if not volume.exists():
            continue
        sections = io.read(volume).array
        if sections.ndim != 4 or sections.shape[0] != 1 or sections.dtype != "uint8":
            raise DataError(
                f"{name} has shape {sections.shape} and type {sections.dtype}; sections of 8-bit "
                "gray values are expected.",
                code="unexpected_dataset",
                hint="This is a different dataset.",
            )
        (folder / below).mkdir(parents=True)
        for number, section in enumerate(sections[0]):
            io.write_rgb(folder / below / f"{number:02d}.png", section)
        volume.unlink()
