"""images/ beside masks/, in the usual names, or two folders that the user names."""

from __future__ import annotations

from pathlib import Path

from ushape.data.layouts.base import (
    LayoutMatch,
    index_images,
    index_masks,
    join_series,
    take_splits_from_keys,
)
from ushape.data.layouts.names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    folders_below,
    images_below,
    stem_key,
)
from ushape.errors import DataError


def find(folder: Path) -> LayoutMatch | None:
    """Looks for one image folder and one mask folder, by their names.

    Raises:
        DataError: several candidates.
    """
    both = find_folders(folder)
    return None if both is None else pair(*both)


def find_folders(folder: Path) -> tuple[Path, Path] | None:
    """The image folder and the mask folder.

    Raises:
        DataError: several candidates.
    """
    below = {path.name.lower(): path for path in folders_below(folder)}
    images = [below[name] for name in IMAGE_FOLDERS if name in below]
    masks = [below[name] for name in MASK_FOLDERS if name in below]
    if not images or not masks:
        return None
    for kind, several in (("image", images), ("mask", masks)):
        if len(several) > 1:
            listed = ", ".join(str(path) for path in several)
            raise DataError(
                f"{folder}: several {kind} folders: {listed}.",
                hint=f"Name the two that belong together: ushape train {images[0]} "
                f"--masks {masks[0]}",
            )
    return images[0], masks[0]


def pair(images: Path, masks: Path) -> LayoutMatch:
    """Pairs the files of two folders by their paths below them."""
    keyed = [(stem_key(path, images), path) for path in images_below(images)]
    if masks != images and masks.is_relative_to(images):
        # A mask folder inside the image folder is no part of the images.
        keyed = [(key, path) for key, path in keyed if not path.is_relative_to(masks)]
    keyed_masks = [(stem_key(path, masks), path) for path in images_below(masks)]
    indexed = index_images(join_series(keyed, [key for key, _ in keyed_masks]))
    found = index_masks(keyed_masks, indexed)
    return take_splits_from_keys(
        LayoutMatch(layout=f"{images.name}/ beside {masks.name}/", images=indexed, masks=found)
    )
