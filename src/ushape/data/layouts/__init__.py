"""Layouts of images and masks. To add one, write a function and list it in one of the tables."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.bids import find_bids
from ushape.data.layouts.cityscapes import find_cityscapes
from ushape.data.layouts.coco import find_coco
from ushape.data.layouts.cvat import find_cvat
from ushape.data.layouts.folders import (
    find_class_folders,
    find_folders,
    find_mirrored_trees,
    find_nested,
    find_object_folders,
    find_split_folders,
)
from ushape.data.layouts.inside import find_masks_inside
from ushape.data.layouts.labelme import find_labelme, find_labelme_export
from ushape.data.layouts.mask_files import find_mask_files
from ushape.data.layouts.nnunet import find_nnunet
from ushape.data.layouts.one_tree import find_one_tree
from ushape.data.layouts.outlines import find_geojson, find_imagej
from ushape.data.layouts.run_lengths import find_run_lengths
from ushape.data.layouts.structures import find_structures, find_structures_beside
from ushape.data.layouts.table import find_table
from ushape.data.layouts.trimaps import find_trimaps
from ushape.data.layouts.voc import find_voc
from ushape.data.layouts.volumes import find_class_files, find_modalities
from ushape.data.layouts.yolo import find_yolo

LAYOUTS: dict[str, Callable[[Path], LayoutMatch | None]] = {
    "nnunet": find_nnunet,
    "table": find_table,
    "structures": find_structures,
    "bids": find_bids,
    "cityscapes": find_cityscapes,
    "voc": find_voc,
    "trimaps": find_trimaps,
    "modalities": find_modalities,
    "class_files": find_class_files,
    "objects": find_object_folders,
    "mask_files": find_mask_files,
    "split_folders": find_split_folders,
    "folders": find_folders,
    "class_folders": find_class_folders,
    "coco": find_coco,
    "yolo": find_yolo,
    "cvat": find_cvat,
    "labelme_export": find_labelme_export,
    "run_lengths": find_run_lengths,
}
"""Each function returns None if the folder does not have its layout. The first that finds pairs is
used, so the most specific layout comes first."""

MASK_LAYOUTS: dict[str, Callable[[Path], LayoutMatch | None]] = {
    "masks_inside": find_masks_inside,
    "nested": find_nested,
    "one_tree": find_one_tree,
    "mirrored_trees": find_mirrored_trees,
    "structures_beside": find_structures_beside,
}
"""Layouts of mask files in places and with names that vary, tried if none of LAYOUTS fits."""

SHAPE_LAYOUTS: dict[str, Callable[[Path, Collection[Path]], LayoutMatch | None]] = {
    "labelme": find_labelme,
    "imagej": find_imagej,
    "geojson": find_geojson,
}
"""Layouts of a file of shapes for each image, tried if none of LAYOUTS fits. Such a file may lie
among many masks, so these layouts are compared with MASK_LAYOUTS. The second argument of each
function is a set of files that are masks, and hence not images."""
