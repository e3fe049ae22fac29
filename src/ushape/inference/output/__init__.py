from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ushape.errors import ConfigError
from ushape.io import ProbabilityType
from ushape.io.rle import Order

ProbabilityFormat = Literal["npz", "tif", "zarr"]
ContourFormat = Literal["geojson", "imagej"]


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What is written, and where.

    Raises:
        ConfigError: nowhere to write to; pictures or probabilities without a folder for them; an
            unknown format; a type of probabilities that are not asked for.
    """

    folder: Path | None
    """For the masks; None: none are written."""

    overlay: bool = False
    """Also NAME_overlay.png beside each mask."""

    probabilities: ProbabilityFormat | None = None
    """Also NAME.npz, or NAME_probabilities.tif or .zarr."""

    probability_type: ProbabilityType | None = None
    """Of their numbers; uint8 holds round(255 p). None: float32 in npz, else uint8."""

    contours: ContourFormat | None = None
    """Also NAME.geojson for QuPath, or NAME_rois.zip for ImageJ."""

    instances: bool = False
    """Also NAME_instances.tif, each object with its number."""

    table: bool = False
    """Also NAME_objects.csv, a row for each object, and images.csv for all images."""

    uncertainty: bool = False
    """Also NAME_uncertainty.png, 255 where the network cannot decide, and images.csv."""

    submission: Path | None = None
    """A .csv or .csv.gz of run lengths."""

    order: Order = "row"
    """How the run lengths count pixels."""

    overwrite: bool = False
    """Replace what exists."""

    def __post_init__(self) -> None:
        if self.folder is None and self.submission is None:
            raise ConfigError("Where shall the masks go?", hint="Name a folder with -o.")
        for name, value, known in (
            ("probabilities", self.probabilities, get_args(ProbabilityFormat)),
            ("probability_type", self.probability_type, get_args(ProbabilityType)),
            ("contours", self.contours, get_args(ContourFormat)),
            ("order", self.order, get_args(Order)),
        ):
            if value is not None and value not in known:
                raise ConfigError(f"{name} is {value!r}.", hint=f"Known: {', '.join(known)}.")
        if self.probability_type is not None and self.probabilities is None:
            raise ConfigError(
                f"Probabilities as {self.probability_type}, but none are asked for.",
                hint="Add --probabilities npz, tif or zarr.",
            )
        if self.folder is None and self.endings:
            raise ConfigError(
                f"No folder is named for what lies beside the masks: {', '.join(self.endings)}.",
                hint="Name one with -o; --rle alone writes run lengths only.",
            )

    @property
    def stored_type(self) -> ProbabilityType:
        """The type of the numbers that are written."""
        return self.probability_type or ("float32" if self.probabilities == "npz" else "uint8")

    @property
    def has_objects(self) -> bool:
        return bool(self.contours or self.instances or self.table)

    @property
    def endings(self) -> dict[str, str]:
        """What files beside the mask are called, by kind."""
        probabilities = {"npz": ".npz", "tif": "_probabilities.tif", "zarr": "_probabilities.zarr"}
        contours = {"geojson": ".geojson", "imagej": "_rois.zip"}
        wanted = {
            "overlay": "_overlay.png" if self.overlay else "",
            "probabilities": probabilities.get(self.probabilities or "", ""),
            "contours": contours.get(self.contours or "", ""),
            "instances": "_instances.tif" if self.instances else "",
            "table": "_objects.csv" if self.table else "",
            "uncertainty": "_uncertainty.png" if self.uncertainty else "",
        }
        return {kind: ending for kind, ending in wanted.items() if ending}

    @property
    def only_whole(self) -> list[str]:
        """Kinds of output that need the whole image in memory."""
        kinds = [kind for kind in self.endings if kind != "probabilities"]
        kinds += ["probabilities as npz"] if self.probabilities == "npz" else []
        by_column = self.submission is not None and self.order == "column"
        return kinds + (["run lengths by column"] if by_column else [])
