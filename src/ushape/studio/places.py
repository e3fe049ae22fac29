"""Files in which the masks of a project are written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ushape import io
from ushape.io.files import absolute_path, real_path
from ushape.studio.listing import Listing, StudioImage, mask_files, new_mask_path, new_mask_root


class MaskPlaces:
    """Chooses files so that no two images have the same one.

    Args:
        listing: Images and masks.
        state: State folder of the project, which holds the separate masks.
    """

    def __init__(self, listing: Listing, state: Path):
        self._listing, self._state = listing, state
        images = listing.images.values()
        self._alike = Counter(map(_shared_key, images))
        self._users = Counter(real_path(file) for one in images for file in mask_files(one.mask))

    def native(self, image: StudioImage, *, is_large: bool) -> Path | None:
        """Return the mask of the user, or the path of a new one next to the others.

        None if it could be taken for the mask of another image.

        Args:
            is_large: Whether a new mask must be written in parts, as TIFF files are.
        """
        if isinstance(image.mask, Path):
            return image.mask if self._users[real_path(image.mask)] == 1 else None
        # Data with such images cannot be read any more as soon as one of their folder has a mask.
        is_ambiguous = not self._users and max(self._alike.values()) > 1
        if image.mask is not None or is_ambiguous or self._alike[_shared_key(image)] > 1:
            return None
        path = new_mask_path(image, self._listing, is_large=is_large)
        return path if self._users[real_path(path)] == 0 else None

    def separate(self, image: StudioImage, suffix: str) -> Path:
        """Return the place of a mask in the state folder."""
        path, folder = map(absolute_path, (image.case.image, self._listing.folder))
        is_inside = path.is_relative_to(folder)
        below = path.relative_to(folder) if is_inside else Path(image.id, path.name)
        stem = io.stem_of(path) if self._alike[_shared_key(image)] == 1 else path.name
        return self._state / "masks_corrected" / below.with_name(stem + suffix)


def _shared_key(image: StudioImage) -> tuple[Path, str]:
    """Return what images have in common whose new masks would have the same name."""
    path = absolute_path(image.case.image)
    return new_mask_root(path), io.stem_of(path).casefold()
