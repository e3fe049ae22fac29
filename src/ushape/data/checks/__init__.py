"""Checks of a scanned data set. A new one is a function and a line in CHECKS."""

from __future__ import annotations

from ushape.data.checks import images, masks
from ushape.data.checks.finding import Check

CHECKS: tuple[Check, ...] = (
    images.find_unpaired,
    images.find_unreadable,
    images.find_other_sizes,
    images.find_mixed_kinds,
    images.find_odd_images,
    masks.find_copies_of_images,
    masks.find_soft_edges,
    masks.find_stray_values,
    masks.find_mixed_encodings,
    masks.find_object_ids,
    masks.find_class_trouble,
    masks.find_empty,
    masks.find_inverted,
    masks.find_misplaced,
    images.find_duplicates,
    images.find_ungrouped,
)
