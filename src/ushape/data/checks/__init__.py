"""Every problem of a data set at once: one pass over the files, then a table of checks.

A new check is a function that yields findings, and a line in CHECKS.
"""

from __future__ import annotations

from ushape.data.checks import images, leaks, masks
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
    leaks.find_duplicates,
    leaks.find_ungrouped,
)
