"""The data sets that can be fetched. A new one is an entry in SOURCES."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Licence and citation, in a line."""

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
        terms="Brain MRI of TCGA-LGG. Licence: CC BY-NC-SA 4.0 as commonly cited; see the Kaggle "
        "page. Cite Buda et al. 2019 and Mazurowski et al. 2017.",
        folders=("kaggle_3m",),
        images="kaggle_3m/*/*[0-9].tif",
        masks="kaggle_3m/*/*_mask.tif",
        cases=3929,
        most_bytes=8 * GIB,  # Two copies of 3929 uncompressed pairs are about 2 GiB.
        dataset="mateuszbuda/lgg-mri-segmentation",
    ),
    "carvana": Source(
        terms="Cars. Licence: the rules of Kaggle's Carvana Image Masking Challenge (2017).",
        folders=("train", "train_masks"),
        images="train/*.jpg",
        masks="train_masks/*_mask.gif",
        cases=5088,
        most_bytes=8 * GIB,
        competition="carvana-image-masking-challenge",
        archives=(Archive(name="train.zip"), Archive(name="train_masks.zip")),
    ),
    "isbi2012": Source(
        terms="EM sections. Licence: none stated with the data; the authors allowed research use. "
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
