"""Usual names of folders and masks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ushape.io import is_image, stem_of
from ushape.io.files import read_head, real_path
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


def images_below(folder: Path) -> list[Path]:
    """Return all readable images in a tree, sorted, without hidden files and folders.

    A folder such as `a.zarr` is one image. Links to folders are followed, except into a folder
    that contains the link. The files x_seg.npy of Cellpose, which hold Python objects, are no
    images.
    """
    return sorted(_walk(folder, {real_path(folder)}))


def is_cellpose_result(path: Path) -> bool:
    """Return whether a file holds Python objects, as the files x_seg.npy of Cellpose."""
    return path.name.lower().endswith("_seg.npy") and b"'|O'" in read_head(path, 128)


def _walk(folder: Path, above: set[Path]) -> Iterator[Path]:
    for path in folder.iterdir():
        if is_image(path):
            if not is_cellpose_result(path):
                yield path
        elif path.is_dir() and not _is_hidden(path):
            real = real_path(path)
            if real not in above:
                yield from _walk(path, above | {real})


def stem_key(path: Path, folder: Path) -> str:
    """Return the path below the folder without suffix, with '/'."""
    return path.relative_to(folder).with_name(stem_of(path)).as_posix()


def key_below(path: Path, folder: Path) -> str:
    """Return `stem_key`, or the whole path of a file that lies elsewhere, to keep keys unique.

    Links are not followed: a linked file has the name of its link.
    """
    path, folder = (Path(os.path.normpath(one.absolute())) for one in (path, folder))
    if path.is_relative_to(folder):
        return stem_key(path, folder)
    return path.with_name(stem_of(path)).as_posix().lstrip("/")


def folders_below(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path))


def annotation_folders(folder: Path) -> list[Path]:
    """Return the folder and annotations/ in it, where tools put files about many images."""
    return [folder, *(p for p in folders_below(folder) if p.name.lower() == "annotations")]


def _is_hidden(folder: Path) -> bool:
    """Return whether a folder is hidden; archives of macOS contain a folder `__MACOSX`."""
    return folder.name.startswith(".") or folder.name == "__MACOSX"


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
