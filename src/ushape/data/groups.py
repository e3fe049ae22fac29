"""Which cases belong together (patient, car, stack), so that none is on two sides of a split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ushape.types import Case

Kind = Literal["folder", "prefix", "stack", "single"]

BLOCK = 3
"""Neighbouring sections of a stack that are kept together."""

_INDEX = re.compile(r"^(?P<prefix>.*?)(?P<joint>[_\-. ]?)(?P<number>\d+)$")


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """The cases with their groups, and how these were inferred."""

    cases: list[Case]
    kind: Kind
    noun: str
    """What a group is, in the plural, for sentences: "groups", "images", "blocks of sections"."""

    text: str


def infer_groups(cases: Sequence[Case], thumbnail_of: Callable[[Case], np.ndarray]) -> Grouping:
    """Groups by folder, else by a common name before the last number, else as a stack of
    neighbouring sections, else each image by itself.

    Args:
        thumbnail_of: A small grey picture (T, T) of a case; tells a stack from single images.
    """
    for kind, key_of in (("folder", _folder_key), ("prefix", _prefix_key)):
        keys = [key_of(case) for case in cases]
        sizes = Counter(keys)
        if len(sizes) >= 2 and len(cases) >= 2 * len(sizes) and "" not in sizes:
            smallest, largest = min(sizes.values()), max(sizes.values())
            each = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
            where = "by folder" if kind == "folder" else "by the name before the last number"
            return Grouping(
                cases=[replace(c, group=key) for c, key in zip(cases, keys, strict=True)],
                kind="folder" if kind == "folder" else "prefix",
                noun="groups",
                text=f"{len(sizes)}, {where} ({each} images each), e.g. {keys[0]}",
            )
    if _is_stack(cases, thumbnail_of):
        return _group_stack(cases)
    return Grouping(
        cases=[replace(case, group=case.id) for case in cases],
        kind="single",
        noun="images",
        text=f"none found, each of the {len(cases)} images by itself",
    )


def _folder_key(case: Case) -> str:
    return case.id.rpartition("/")[0]


def _prefix_key(case: Case) -> str:
    """`car_04` -> `car`; '' where the name does not end in a number after something."""
    match = _INDEX.match(case.id)
    if match is None or not match["joint"]:
        return ""
    return match["prefix"]


def _is_stack(
    cases: Sequence[Case], thumbnail_of: Callable[[Case], np.ndarray], margin: float = 0.1
) -> bool:
    """Numbered one after the other, and neighbours look clearly more alike than others."""
    numbers = [_number_of(case) for case in cases]
    if len(cases) < 6 or any(number is None for number in numbers):
        return False
    order = np.argsort(np.asarray(numbers, dtype=np.int64))
    steps = np.diff(np.asarray(numbers, dtype=np.int64)[order])
    if np.median(steps) != 1:
        return False
    pictures = np.stack([thumbnail_of(cases[index]).ravel() for index in order])
    pictures = pictures - pictures.mean(axis=0)  # What all have in common says nothing.
    pictures /= np.maximum(np.linalg.norm(pictures, axis=1, keepdims=True), 1e-9)
    alike = pictures @ pictures.T
    neighbours = float(np.median(np.diag(alike, 1)))
    far = np.triu(np.ones_like(alike, dtype=bool), k=max(3, len(cases) // 4))
    return neighbours > float(np.median(alike[far])) + margin


def _group_stack(cases: Sequence[Case]) -> Grouping:
    """Contiguous blocks of sections, of nearly equal size."""
    ordered = sorted(cases, key=lambda case: _number_of(case) or 0)
    blocks = np.array_split(np.arange(len(ordered)), max(3, len(ordered) // BLOCK))
    groups: dict[str, str] = {}
    for number, block in enumerate(blocks):
        first, last = ordered[block[0]].id, ordered[block[-1]].id
        for index in block:
            # The number first, so that sorting the groups keeps the order of the sections.
            groups[ordered[index].id] = f"{number:04d} ({first} to {last})"
    return Grouping(
        cases=[replace(case, group=groups[case.id]) for case in cases],
        kind="stack",
        noun="blocks of sections",
        text=f"one stack of {len(cases)} neighbouring sections (they look alike), cut into "
        f"{len(blocks)} contiguous blocks",
    )


def _number_of(case: Case) -> int | None:
    match = _INDEX.match(case.id)
    return int(match["number"]) if match else None
