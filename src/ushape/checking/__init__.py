"""Every problem of a data set at once: one pass over the files, then a table of checks.

A new check is a function that yields findings, and a line in CHECKS.
"""

from __future__ import annotations

from ushape.checking import files, leaks, masks
from ushape.checking.findings import Check

CHECKS: tuple[Check, ...] = (
    files.find_unpaired,
    files.find_unreadable,
    files.find_other_sizes,
    files.find_mixed_kinds,
    files.find_odd_images,
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
