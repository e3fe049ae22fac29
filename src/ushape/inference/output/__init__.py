"""Outputs of prediction: which files are written for each image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from ushape.errors import ConfigError, require_package
from ushape.io import ProbabilityType
from ushape.io.dicom_seg_writer import load_highdicom
from ushape.io.rle import Order

ProbabilityFormat = Literal["npz", "tif", "zarr"]
ContourFormat = Literal["geojson", "imagej", "coco"]
TableColumns = Literal["basic", "full"]


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Outputs of a call of `predict`, which describes the files next to the masks.

    Raises:
        ConfigError: if there is no output, an output has no folder, a format is unknown, or a type
            or columns are given for probabilities or a table that are not written.
        MissingPackageError: if a format needs a package that is not installed.
    """

    folder: Path | None
    """Folder of the masks; None: no masks are written."""

    overlay: bool = False
    probabilities: ProbabilityFormat | None = None
    probability_type: ProbabilityType | None = None
    contours: ContourFormat | None = None
    instances: bool | None = None
    """Whether object numbers are written; None: if the masks join objects that touch and the image
    is in memory."""

    table: bool = False
    columns: TableColumns = "basic"
    uncertainty: bool = False
    dicom_seg: bool = False
    zarr_labels: bool = False

    submission: Path | None = None
    """Path of a .csv or .csv.gz of run lengths."""

    order: Order = "row"
    """Order in which run lengths count pixels."""

    overwrite: bool = False
    """Replace existing outputs."""

    verify: bool = False
    """Read the outputs of an earlier call again to check whether they have changed."""

    part: str = ""
    """Name of the part of the images that is predicted, as in a file name; '' for all images."""

    def __post_init__(self) -> None:
        if self.folder is None and self.submission is None:
            raise ConfigError(
                "No output folder for the masks was specified.",
                code="missing_output",
                hint="Specify an output folder with -o.",
            )
        if self.part and self.folder is None:
            raise ConfigError(
                f"This is part {self.part} of the images, but no folder for its log was specified.",
                code="missing_output",
                hint="Specify an output folder with -o, or predict all images with --part 1/1.",
            )
        for name, value, known in (
            ("probabilities", self.probabilities, get_args(ProbabilityFormat)),
            ("probability_type", self.probability_type, get_args(ProbabilityType)),
            ("contours", self.contours, get_args(ContourFormat)),
            ("columns", self.columns, get_args(TableColumns)),
            ("order", self.order, get_args(Order)),
        ):
            if value is not None and value not in known:
                raise ConfigError(
                    f"{name} has the unknown value {value!r}.",
                    code="unknown_output_format",
                    hint=f"Known values: {', '.join(known)}.",
                )
        if self.probability_type is not None and self.probabilities is None:
            raise ConfigError(
                f"probability_type is {self.probability_type}, but no probabilities are written.",
                code="probabilities_not_requested",
                hint="Add --probabilities npz, tif or zarr.",
            )
        if self.columns != "basic" and not self.table:
            raise ConfigError(
                f"columns is {self.columns}, but no table is written.",
                code="table_not_requested",
                hint="Add --table.",
            )
        if self.folder is None and self.endings:
            raise ConfigError(
                f"No output folder was specified for {', '.join(self.endings)}.",
                code="missing_output",
                hint="Specify an output folder with -o; --rle alone writes only run lengths.",
            )
        if self.zarr_labels and self.folder is None:
            raise ConfigError(
                "No output folder was specified for the masks and the list of finished images.",
                code="missing_output",
                hint="Specify an output folder with -o; --rle alone writes only run lengths.",
            )
        if self.zarr_labels:
            require_package("zarr", "zarr", "Adding label images with --zarr-labels")
        if self.contours == "imagej":
            require_package("roifile", "imagej", "Writing regions for ImageJ (--contours imagej)")
        if self.dicom_seg:
            load_highdicom("Writing DICOM segmentations (--dicom-seg)")
        if self.probabilities == "zarr":
            require_package("zarr", "zarr", "Writing probabilities with --probabilities zarr")

    @property
    def is_decided_by_log(self) -> bool:
        """Whether images that the log lists as finished can be skipped: no other file lists all
        images, and existing outputs are neither replaced nor read."""
        lists_images = self.submission is not None or self.table or self.uncertainty
        return not (lists_images or self.zarr_labels or self.overwrite or self.verify)

    @property
    def stored_type(self) -> ProbabilityType:
        """Data type of the stored probabilities."""
        return self.probability_type or ("float32" if self.probabilities == "npz" else "uint8")

    @property
    def has_objects(self) -> bool:
        return bool(self.contours or self.instances or self.table)

    def for_masks(self, *, join_objects: bool) -> OutputConfig:
        """Return the outputs with `instances` decided.

        Args:
            join_objects: Whether the masks join objects that touch, although the model separates
                them.
        """
        if self.instances is not None:
            return self
        return replace(self, instances=join_objects and self.folder is not None)

    @property
    def endings(self) -> dict[str, str]:
        """Endings of the files next to the mask, by kind of output."""
        probabilities = {"npz": ".npz", "tif": "_probabilities.tif", "zarr": "_probabilities.zarr"}
        contours = {"geojson": ".geojson", "imagej": "_rois.zip", "coco": "_coco.json"}
        wanted = {
            "overlay": "_overlay.png" if self.overlay else "",
            "probabilities": probabilities.get(self.probabilities or "", ""),
            "contours": contours.get(self.contours or "", ""),
            "instances": "_instances.tif" if self.instances else "",
            "table": "_objects.csv" if self.table else "",
            "uncertainty": "_uncertainty.png" if self.uncertainty else "",
            "dicom_seg": "_seg.dcm" if self.dicom_seg else "",
        }
        return {kind: ending for kind, ending in wanted.items() if ending}

    @property
    def only_whole(self) -> list[str]:
        """Outputs that need the whole image in memory."""
        kinds = [kind for kind in self.endings if kind != "probabilities"]
        kinds += ["probabilities as npz"] if self.probabilities == "npz" else []
        by_column = self.submission is not None and self.order == "column"
        return kinds + (["run lengths by column"] if by_column else [])
