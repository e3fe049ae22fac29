"""Check the positions in the headers of medical images and their masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ushape.data.checks.finding import Finding
from ushape.data.scan import DatasetStats
from ushape.data.spacing import spacing_text
from ushape.formatting import pluralize
from ushape.types import GridRemark


def _missing(axis: str) -> tuple[str, str]:
    return (
        f"the spacing along {axis} in the header of a file is 0 or not a number. Positions are "
        "compared as if it were 1 mm, voxels are assumed to be cubes, and distances and sizes are "
        "given in pixels; the spacing along the other axes is not used.",
        "Correct the spacing in the header, or specify it with --set "
        "preprocessing.spacing_mm=[Z,Y,X].",
    )


REMARKS: Mapping[GridRemark, tuple[str, str]] = {
    "reoriented": (
        "the axes of image and mask have different directions according to their headers, so the "
        "mask is mirrored or its axes are exchanged to fit the image.",
        "No action is needed if viewers show the mask in its place. `--fix FOLDER` saves the masks "
        "on the grids of their images.",
    ),
    "cropped": (
        "the mask covers only a region of the image's grid, so it is placed by its origin, and "
        "pixels that it does not cover are 0.",
        "No action is needed if viewers show the mask in its place. `--fix FOLDER` saves the masks "
        "on the grids of their images.",
    ),
    "resampled": (
        "image and mask have different spacing, origin or direction, so the mask is resampled to "
        "the image (nearest neighbor).",
        "Check the masks of a copy from `--fix FOLDER` in a viewer. If the pixels of both files "
        "correspond by their index, copy the image's header to the mask.",
    ),
    "shifted": (
        "the positions of image and mask differ by less than half a pixel, which is ignored.",
        "Copy the image's header to the mask if the pixels correspond; `--fix FOLDER` does so.",
    ),
    "unpositioned": (
        "image and mask have different spacing, origin or direction, and one of them appears to "
        "have no position, so the pixels are paired by their index.",
        "Check in a viewer whether the masks lie on the images pixel by pixel; `--fix FOLDER` "
        "saves masks with the position of their images.",
    ),
    "sheared": (
        "the axes in the header of a file are not exactly at right angles (sform of a NIfTI "
        "header), which is corrected.",
        "No action is needed; the deviation is at most about 1 degree.",
    ),
    "no_spacing": (
        "a file does not specify its spacing, so positions are compared as if it were 1 mm, and "
        "distances and sizes are given in pixels.",
        "Set the spacing in the header if distances matter.",
    ),
    "no_spacing_x": _missing("x"),
    "no_spacing_y": _missing("y"),
    "no_spacing_z": _missing("z"),
    "negative_spacing": (
        "the spacing in the header of a file is negative; its absolute value is used, as in "
        "nibabel.",
        "Check in a viewer whether the volume is mirrored, and correct the spacing in the header "
        "(pixdim of a NIfTI header).",
    ),
}
"""Description of what was done, and of what the user can do."""


IN_COPY = ("reoriented", "cropped", "resampled", "shifted", "unpositioned")
"""Remarks on masks that are written on the grid of their image by `--fix`."""

LARGEST_MM, SMALLEST_MM, LARGEST_RATIO = 300.0, 1e-6, 100.0
"""Largest and smallest plausible spacing, and largest ratio between the axes of one image."""


def find_odd_spacing(dataset: DatasetStats) -> Iterator[Finding]:
    """Find images whose spacing is implausible, for example because of a wrong unit."""
    odd = [stats for stats in dataset.readable if _is_odd(stats.spacing_mm or ())]
    if odd:
        yield Finding(
            check="odd_spacing",
            severity="warning",
            text=f"In {len(odd)} of {pluralize(len(dataset.readable), 'image')}, the spacing in "
            f"the header is implausible, e.g. {spacing_text(odd[0].spacing_mm or ())} in "
            f"{odd[0].case.image}: above {LARGEST_MM:g} mm, below {SMALLEST_MM:g} mm, or more "
            f"than {LARGEST_RATIO:g} times as long along one axis as along another.",
            fix="Correct the spacing in the header, which may have the wrong unit. For volumes, "
            "you can instead specify it with --set preprocessing.spacing_mm=[Z,Y,X].",
            cases=tuple(stats.case.id for stats in odd),
        )


def _is_odd(spacing_mm: Sequence[float]) -> bool:
    if not spacing_mm:
        return False
    low, high = min(spacing_mm), max(spacing_mm)
    return high > LARGEST_MM or low < SMALLEST_MM or high > LARGEST_RATIO * low


def find_other_grids(dataset: DatasetStats) -> Iterator[Finding]:
    """Find masks that had to be resampled to the grid of their image, and corrected headers."""
    for remark, (text, fix) in REMARKS.items():
        cases = [stats.case.id for stats in dataset.readable if remark in stats.grid_remarks]
        if cases:
            yield Finding(
                check=f"grid_{remark}",
                severity="note" if remark == "cropped" else "warning",
                text=f"In {len(cases)} of {pluralize(len(dataset.readable), 'pair')}, {text}",
                fix=fix,
                cases=tuple(cases),
                in_copy="corrected" if remark in IN_COPY else "",
            )
