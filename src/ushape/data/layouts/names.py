"""Usual names of folders and masks."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from ushape.io import stem_of, suffix_of
from ushape.types import Split

IMAGE_FOLDERS = (
    "images", "image", "imgs", "img", "train", "train_images", "inputs", "input", "raw",
)  # fmt: skip
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "train_masks",
    "train_labels", "targets", "target", "segmentations", "segmentation", "gt", "ground_truth",
    "groundtruth", "truth",
)  # fmt: skip
MASK_WORDS = (
    "mask", "masks", "label", "labels", "seg", "segmentation", "segmentations", "gt", "annotation",
    "annotations", "truth", "groundtruth", "target", "targets", "manual", "anno", "annot", "msk",
    "lbl", "labelled", "labeled",
)  # fmt: skip
IMAGE_WORDS = (
    "image", "images", "imaging", "img", "imgs", "volume", "raw", "input", "scan", "photo",
)  # fmt: skip
SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def stem_key(path: Path, folder: Path) -> str:
    """Return the path below the folder without suffix, with '/'."""
    below = _text_below(path, folder)
    if below is None:
        return path.relative_to(folder).with_name(stem_of(path)).as_posix()
    key = below[: len(below) - len(suffix_of(path))]
    return key if os.sep == "/" else key.replace(os.sep, "/")


def _text_below(path: Path, folder: Path) -> str | None:
    """Return the path below a folder with whose text it begins; None for other paths."""
    text, start = str(path), str(folder)
    if start == os.curdir:
        return None if path.is_absolute() else text
    start = start if start.endswith(os.sep) else start + os.sep
    return text[len(start) :] if text.startswith(start) else None


def key_below(path: Path, folder: Path) -> str:
    """Return `stem_key`, or the whole path of a file that lies elsewhere, to keep keys unique.

    Links are not followed: a linked file has the name of its link.
    """
    below = _text_below(path, folder)
    if below is not None and os.pardir not in below:
        return stem_key(path, folder)
    path, folder = (Path(os.path.normpath(one.absolute())) for one in (path, folder))
    if path.is_relative_to(folder):
        return stem_key(path, folder)
    return path.with_name(stem_of(path)).as_posix().lstrip("/")


def has_mask_word(name: str) -> bool:
    """Return whether a name contains a usual word for masks, as `1st_manual` and `x-labels`."""
    return any(word in (*MASK_WORDS, *MASK_FOLDERS) for word in words_of(name))


def has_image_word(name: str) -> bool:
    """Return whether a name contains a usual word for images."""
    return any(word in IMAGE_WORDS for word in words_of(name))


def words_of(name: str) -> set[str]:
    """Return the words and numbers in a name, in lower case."""
    return set(re.findall(r"\d+|[^\W\d_]+", name.lower()))


def strip_mask_word(key: str) -> str | None:
    """Return the key of the image that a mask belongs to; None if the key does not name a mask.

    `a/x_mask`, `a/x-seg` and `a/mask_x` belong to `a/x`, and `a/mask` to `a`.
    """
    return _strip_word(key, MASK_WORDS)


def names_of_masks(keys: Collection[str]) -> list[str]:
    """Return the keys that name a mask, for which `strip_mask_word` returns a key."""
    text = "\n".join(keys).lower()
    words = [word for word in MASK_WORDS if word in text]
    return [key for key in keys if _strip_word(key, words) is not None] if words else []


def strip_image_word(key: str) -> str | None:
    """Return `a/x` for `a/x_image` and `a/x-volume`; None if the key has no such word."""
    return _strip_word(key, IMAGE_WORDS)


def _strip_word(key: str, words: Sequence[str]) -> str | None:
    parent, slash, name = key.rpartition("/")
    lower = name.lower()
    if lower in words and parent:
        return parent
    for word in words:
        for separator in ("_", "-", ".", " "):
            if lower.endswith(separator + word) and len(name) > len(word) + 1:
                return parent + slash + name[: -len(word) - 1]
            if lower.startswith(word + separator) and len(name) > len(word) + 1:
                return parent + slash + name[len(word) + 1 :]
    return None
