"""What a layout finds: pairs, and what is left over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ushape.data.layouts.names import strip_mask_word
from ushape.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Found:
    """Images and masks of one layout, by key: the name that both have in common."""

    layout: str
    """In words: "images/ beside masks/"."""

    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    """By the key of the image that each belongs to."""

    @property
    def paired(self) -> list[str]:
        return sorted(self.images.keys() & self.masks.keys())


def index_images(paths: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """Images by key.

    Raises:
        DataError: two images of one key.
    """
    found: dict[str, Path] = {}
    for key, path in paths:
        if key in found:
            raise DataError(
                f"Two images are called {key}: {found[key]} and {path}.",
                hint="Take one of them out, or rename it: a mask must belong to one image.",
            )
        found[key] = path
    return found


def index_masks(paths: Sequence[tuple[str, Path]], images: Mapping[str, Path]) -> dict[str, Path]:
    """Masks by the key of their image: the same key, or one with a word such as `_mask`.

    Raises:
        DataError: two masks for one image.
    """
    found: dict[str, Path] = {}
    for key, path in paths:
        stripped = strip_mask_word(key)
        own = key if key in images or stripped is None else stripped
        if own in found:
            raise DataError(
                f"Two masks belong to {own}: {found[own]} and {path}.",
                hint="Take one of them out of the folder.",
            )
        found[own] = path
    return found
