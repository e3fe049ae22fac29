"""Images with a folder of their masks among them."""

from __future__ import annotations

from pathlib import Path

from ushape.data.layouts.base import LayoutMatch, pair_files
from ushape.data.layouts.listing import entries_of, folders_below, images_below
from ushape.data.layouts.names import has_mask_word, stem_key


def find_masks_inside(folder: Path) -> LayoutMatch | None:
    """Find images directly in a folder, and their masks in its only subfolder with images.

    Example: `x.tif` and `masks/x.tif`. The name of the subfolder must contain a usual word for
    masks.
    """
    images = entries_of(folder).images
    below = [place for place in folders_below(folder) if images_below(place)]
    if not images or len(below) != 1 or not has_mask_word(below[0].name):
        return None
    masks = below[0]
    return pair_files(
        f"{masks.name}/ among the images",
        [(stem_key(path, folder), path) for path in images],
        [(stem_key(path, masks), path) for path in images_below(masks)],
    )
