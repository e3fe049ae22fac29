"""One tree in which a mask is called like its image, with a word such as `_mask`."""

from __future__ import annotations

from pathlib import Path

from ushape.data.layouts.base import (
    LayoutMatch,
    index_images,
    index_masks,
    join_series,
    take_splits_from_keys,
)
from ushape.data.layouts.names import images_below, stem_key, strip_mask_word


def find(folder: Path) -> LayoutMatch | None:
    """Takes every file with a mask's name for a mask, the others for images."""
    masks: list[tuple[str, Path]] = []
    images: list[tuple[str, Path]] = []
    for path in images_below(folder):
        key = stem_key(path, folder)
        (images if strip_mask_word(key) is None else masks).append((key, path))
    if not masks or not images:
        return None
    indexed = index_images(join_series(images, [key for key, _ in masks]))
    example = masks[0][1].stem
    return take_splits_from_keys(
        LayoutMatch(
            layout=f"one tree, masks named as {example}",
            images=indexed,
            masks=index_masks(masks, indexed),
        )
    )
