"""Images and masks in the folders that the user specifies."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Sequence
from pathlib import Path

from ushape.data.layouts.base import LayoutMatch, pair_files
from ushape.data.layouts.candidates import MAX_MASK_VALUES, values_of
from ushape.data.layouts.listing import folders_below, images_below
from ushape.data.layouts.names import IMAGE_FOLDERS, stem_key
from ushape.errors import DataError
from ushape.io import is_image


def pair_named(data: Path, masks: Path) -> LayoutMatch:
    """Pair the images in a folder with the masks that the user specifies.

    Args:
        data: Folder of the images. If it contains the masks and a folder with a usual name for
            images, this folder is used.
        masks: Folder of the masks, or a pattern such as `data/*_mask.png`.

    Raises:
        DataError: if there are no masks, if they are the images, or if a mask belongs to several
            images.
    """
    if masks.is_dir():
        start, chosen = masks, images_below(masks)
    else:
        start = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), masks.parts))
        chosen = sorted(
            path for path in start.glob(str(masks.relative_to(start))) if is_image(path)
        )
    if not chosen:
        raise DataError(
            f"There are no masks in {masks}." if masks.is_dir() else f"No mask matches {masks}.",
            code="no_masks",
            hint="Specify the folder of the masks, or a pattern such as --masks 'DATA/*_mask.png'.",
        )
    images = data
    if start != data and start.is_relative_to(data):
        usual = [p for p in folders_below(data) if p.name.lower() in IMAGE_FOLDERS and p != start]
        images = usual[0] if len(usual) == 1 and not start.is_relative_to(usual[0]) else data
    used = set(chosen)
    files = [path for path in images_below(images) if path not in used]
    _refuse_images(data, masks, files, chosen)
    start = images if start.is_relative_to(images) and not masks.is_dir() else start
    return pair_files(
        f"{images.name}/ next to {masks.name}{'/' if masks.is_dir() else ''}",
        [(stem_key(path, images), path) for path in files],
        [(stem_key(path, start), path) for path in chosen],
    )


def _refuse_images(data: Path, masks: Path, images: Sequence[Path], chosen: Sequence[Path]) -> None:
    """Refuse masks that are the images themselves.

    Raises:
        DataError: if no other image is left, or if the masks lie in a folder with a usual name for
            images and contain too many values.
    """
    is_image_folder = masks.name.lower() in IMAGE_FOLDERS
    if images and not (is_image_folder and len(values_of(chosen)) > MAX_MASK_VALUES):
        return
    what = f"--masks selects {masks}, whose files contain too many values to be masks."
    if not images:
        what = (
            f"--masks selects {masks}, which contains all images in {data}: no other image is left."
        )
    raise DataError(
        what,
        code="masks_are_images",
        hint="Specify the folder of the images, and the folder of the masks with --masks, for "
        "example ushape train images --masks masks. If masks are in the same folder as the "
        "images, omit --masks.",
    )
