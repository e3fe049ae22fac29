"""How people name what belongs together."""

from __future__ import annotations

from pathlib import Path

from ushape.io import is_image

IMAGE_FOLDERS = (
    "images", "image", "imgs", "img", "train", "train_images", "inputs", "input", "raw",
)  # fmt: skip
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "train_masks",
    "train_labels", "targets", "target", "segmentations", "segmentation", "gt", "ground_truth",
    "groundtruth", "truth",
)  # fmt: skip
MASK_WORDS = (
    "mask", "masks", "label", "labels", "seg", "segmentation", "gt", "annotation",
    "truth", "target",
)  # fmt: skip


def images_below(folder: Path) -> list[Path]:
    """All readable images in a tree, sorted; hidden files and folders are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if is_image(path)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def stem_key(path: Path, folder: Path) -> str:
    """Path below the folder without suffix, with '/'."""
    return path.relative_to(folder).with_suffix("").as_posix()


def strip_mask_word(key: str) -> str | None:
    """The key of the image that a mask of this key belongs to; None if it names no mask.

    `a/x_mask`, `a/x-seg` and `a/mask_x` belong to `a/x`.
    """
    parent, slash, name = key.rpartition("/")
    lower = name.lower()
    for word in MASK_WORDS:
        for joint in ("_", "-", ".", " "):
            if lower.endswith(joint + word) and len(name) > len(word) + 1:
                return parent + slash + name[: -len(word) - 1]
            if lower.startswith(word + joint) and len(name) > len(word) + 1:
                return parent + slash + name[len(word) + 1 :]
    return None
