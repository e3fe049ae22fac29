"""Check of the positions that medical images and their masks state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ushape.data.checks.finding import Finding
from ushape.data.scan import DatasetStats
from ushape.formatting import pluralize
from ushape.types import GridRemark

REMARKS: Mapping[GridRemark, tuple[str, str]] = {
    "reoriented": (
        "image and mask state different directions of their axes, so the mask is mirrored or its "
        "axes are exchanged to fit the image.",
        "No action is needed if viewers show the mask in its place. `--fix FOLDER` saves the masks "
        "on the grids of their images.",
    ),
    "cropped": (
        "the mask covers another part of the image's grid, so it is placed by its origin, and "
        "pixels that it does not cover are 0.",
        "No action is needed if viewers show the mask in its place. `--fix FOLDER` saves the masks "
        "on the grids of their images.",
    ),
    "resampled": (
        "image and mask state different spacing, origin or direction, so the mask is resampled to "
        "the image (nearest neighbor).",
        "Check the masks of a copy from `--fix FOLDER` in a viewer. If the pixels of both files "
        "correspond by their index, copy the image's header to the mask.",
    ),
    "shifted": (
        "the positions of image and mask differ by less than half a pixel, which is ignored.",
        "Copy the image's header to the mask if the pixels correspond; `--fix FOLDER` does so.",
    ),
    "unpositioned": (
        "image and mask state different spacing, origin or direction, and one of them looks like a "
        "file without a position, so the pixels are paired by their index.",
        "Check in a viewer whether the masks lie on the images pixel by pixel; `--fix FOLDER` "
        "saves masks with the position of their images.",
    ),
    "sheared": (
        "the axes that a file states are not exactly at right angles (sform of a NIfTI header), "
        "which is corrected.",
        "No action is needed; the deviation is at most about 1 degree.",
    ),
    "no_spacing": (
        "a file states no spacing, so positions are compared as if it were 1 mm, and distances and "
        "sizes are given in pixels.",
        "Set the spacing in the header if distances matter.",
    ),
}
"""Description of what was done, and what to do about it."""


def find_other_grids(dataset: DatasetStats) -> Iterator[Finding]:
    """Find masks that had to be brought onto the grid of their image, and corrected headers."""
    for remark, (text, fix) in REMARKS.items():
        cases = [stats.case.id for stats in dataset.readable if remark in stats.grid_remarks]
        if cases:
            yield Finding(
                check=f"grid_{remark}",
                severity="note" if remark == "cropped" else "warning",
                text=f"In {pluralize(len(cases), 'pair')}, {text}",
                fix=fix,
                cases=tuple(cases),
                in_copy="" if remark in ("sheared", "no_spacing") else "corrected",
            )
