"""Forms in which people keep images and masks. A new one is a file and a line in LAYOUTS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ushape.data.layouts import (
    class_folders,
    coco,
    folders,
    mask_per_object,
    mirrored_trees,
    nnunet,
    split_folders,
    suffix,
    table,
)
from ushape.data.layouts.base import LayoutMatch

LAYOUTS: dict[str, Callable[[Path], LayoutMatch | None]] = {
    "nnunet": nnunet.find,
    "table": table.find,
    "objects": mask_per_object.find,
    "given_splits": split_folders.find,
    "folders": folders.find,
    "class_folders": class_folders.find,
    "coco": coco.find,
    "suffix": suffix.find,
    "parallel": mirrored_trees.find,
}
"""Each returns None where the folder does not have its form. The first that finds pairs holds, so
the form that says most stands first."""
