"""BIDS: sub-ID/anat/sub-ID_T1w.nii.gz, and masks in derivatives/."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.listing import folders_below, images_below
from ushape.data.layouts.names import MASK_WORDS
from ushape.errors import DataError
from ushape.io import stem_of

_SUBJECT = re.compile(r"(?:^|/)(?P<scan>(?P<subject>sub-[^_/]+)(?:_ses-[^_/]+)?)_[^/]*$")
_SUBJECT_ENTITY = re.compile(r"^sub-[^_]+_(ses-[^_]+_)?")

BIDS_MASK_SUFFIXES = ("mask", "dseg", "roi")


def find_bids(folder: Path) -> LayoutMatch | None:
    """Pair the images of sub-*/ with the masks below derivatives/; each subject is a group.

    A mask belongs to the image whose name it begins with, otherwise to the only image of its
    subject and session.

    Raises:
        DataError: if there are several kinds of mask, or several images for a mask.
    """
    derived = folder / "derivatives"
    subjects = [path for path in folders_below(folder) if fnmatch(path.name, "sub-*")]
    if not subjects or not derived.is_dir():
        return None
    masks = [path for path in images_below(derived) if _is_mask(stem_of(path))]
    kinds: dict[str, list[Path]] = {}
    for path in masks:
        pipeline = path.relative_to(derived).parts[0]
        kinds.setdefault(f"{pipeline}/*{_SUBJECT_ENTITY.sub('', path.name)}", []).append(path)
    if not kinds:
        return None
    if len(kinds) > 1:
        raise DataError(
            f"{derived}: there are several kinds of masks: {', '.join(sorted(kinds))}.",
            code="ambiguous_masks",
            hint="Keep one of them in the folder, or list the pairs in a table with the columns "
            "image and mask.",
        )
    images = [path for place in subjects for path in images_below(place)]
    pairs = _pair(images, masks)
    keys = {mask: _scan_of(mask)["scan"] for mask in pairs}
    return LayoutMatch(
        layout=f"BIDS: sub-*/ with derivatives/{next(iter(kinds))}",
        images={keys[mask]: image for mask, image in pairs.items()},
        masks={keys[mask]: mask for mask in pairs},
        groups={keys[mask]: _scan_of(mask)["subject"] for mask in pairs},
    )


def _is_mask(stem: str) -> bool:
    last = re.split(r"[_-]", stem)[-1].lower()
    return _SUBJECT.search(stem) is not None and last in (*MASK_WORDS, *BIDS_MASK_SUFFIXES)


def _scan_of(path: Path) -> Mapping[str, str]:
    match = _SUBJECT.search(path.name)
    return match.groupdict() if match else {"scan": "", "subject": ""}


def _pair(images: Sequence[Path], masks: Sequence[Path]) -> dict[Path, Path]:
    pairs: dict[Path, Path] = {}
    for mask in masks:
        own = [path for path in images if _scan_of(path)["scan"] == _scan_of(mask)["scan"]]
        named = [path for path in own if stem_of(mask).startswith(stem_of(path))]
        fitting = named or own
        if len(fitting) > 1:
            raise DataError(
                f"{mask}: the mask could belong to {fitting[0].name} or {fitting[1].name}.",
                code="ambiguous_image",
                hint="List the pairs in a table with the columns image and mask.",
            )
        if fitting:
            pairs[mask] = fitting[0]
    return pairs
