"""Checks of how files store images and masks, and of content that was read differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ushape import io
from ushape.data.checks.finding import Finding
from ushape.data.scan import DatasetStats, writes_as_stored
from ushape.formatting import pluralize
from ushape.types import Turn


def find_wrong_suffixes(dataset: DatasetStats) -> Iterator[Finding]:
    """Find files whose content is of another format than their suffix says."""
    wrong: dict[str, Path] = {}
    for stats in dataset.readable:
        for path in (stats.case.image, stats.case.mask):
            if isinstance(path, Path) and io.content_suffix(path) != io.suffix_of(path):
                wrong.setdefault(stats.case.id, path)
    if wrong:
        first = next(iter(wrong.values()))
        kind = io.content_suffix(first).lstrip(".").upper()
        yield Finding(
            check="wrong_suffix",
            severity="note",
            text=f"In {pluralize(len(wrong), 'pair')}, the suffix of a file is wrong, e.g. "
            f"{first} is a file of type {kind}. The format of these files is determined by "
            "their content.",
            fix="No action is needed; rename the files if other programs cannot open them.",
            cases=tuple(wrong),
        )


def find_converted_images(dataset: DatasetStats) -> Iterator[Finding]:
    """Find grayscale images among color images, and planes that are read as channels."""
    total = len(dataset.readable)
    gray = [stats.case.id for stats in dataset.readable if stats.stored_as == "gray"]
    if gray:
        yield Finding(
            check="gray",
            severity="warning",
            text=f"{pluralize(len(gray), 'image')} of {total} are grayscale; the others have "
            "three channels. The gray values are used for all three channels.",
            fix="No action is needed if the images show the same kind of scene; otherwise remove "
            "the grayscale images.",
            cases=tuple(gray),
        )
    planes = [stats for stats in dataset.readable if stats.stored_as == "planes"]
    if planes:
        yield Finding(
            check="planes",
            severity="warning",
            text=f"In {pluralize(len(planes), 'image')}, the file has {planes[0].channels} planes "
            "(pages of a TIFF), but the mask has one. The planes are read as channels.",
            fix="No action is needed if the planes are channels; otherwise save a mask for each "
            "plane, or each plane as an image.",
            cases=tuple(stats.case.id for stats in planes),
        )


def find_turned_photographs(dataset: DatasetStats) -> Iterator[Finding]:
    """Find images with an EXIF orientation, and how their masks fit them."""
    turned = [stats for stats in dataset.readable if stats.turn]
    if not turned:
        return
    counts = Counter(stats.turn for stats in turned)
    odd = [stats.case.id for stats in turned if stats.turn != "displayed"]
    texts: dict[Turn, str] = {
        "displayed": "the mask fits the image as it is displayed",
        "stored": "the mask fits the stored pixels and is rotated with them",
        "unclear": "the mask could fit either and is applied to the image as it is displayed",
    }
    listed = "; ".join(f"in {counts[turn]}, {text}" for turn, text in texts.items() if counts[turn])
    written = "stored pixels" if writes_as_stored(dataset) else "displayed image"
    yield Finding(
        check="exif",
        severity="warning" if odd else "note",
        text=f"In {pluralize(len(turned), 'pair')}, the EXIF orientation applies to the image but "
        f"not to the mask: {listed}. Predicted masks fit the {written}.",
        fix="View them in check.html. If a mask is rotated incorrectly, save its image without an "
        "EXIF orientation."
        if odd
        else "No action is needed.",
        cases=tuple(odd or (stats.case.id for stats in turned)),
    )


def find_unusual_masks(dataset: DatasetStats) -> Iterator[Finding]:
    """Find masks whose classes are not the gray values or colors of the file."""
    for kind, text, fix in (
        (
            "alpha",
            "all visible pixels have one color, so the alpha channel is read as the mask",
            "No action is needed if opaque pixels are the objects; otherwise save the masks "
            "without an alpha channel.",
        ),
        (
            "one_hot",
            "exactly one of the channels is set in each pixel, so the index of this channel, "
            "counted from 0, is read as the class. Predicted masks contain this index",
            "No action is needed; to avoid this warning, save masks with the class number of each "
            "pixel.",
        ),
    ):
        cases = [stats.case.id for stats in dataset.readable if stats.encoding.kind == kind]
        if cases:
            yield Finding(
                check=f"mask_{kind}",
                severity="warning",
                text=f"In {pluralize(len(cases), 'mask')}, {text}.",
                fix=fix,
                cases=tuple(cases),
            )
    inverted = [stats.case.id for stats in dataset.readable if stats.encoding.white_is_zero]
    if inverted:
        yield Finding(
            check="white_is_zero",
            severity="warning",
            text=f"{pluralize(len(inverted), 'mask')} in TIFF format store white as 0. They are "
            "read as viewers show them: white pixels have the highest value, and black pixels "
            "are 0.",
            fix="No action is needed if objects appear white; otherwise invert the masks.",
            cases=tuple(inverted),
        )
