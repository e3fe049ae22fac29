"""Which cases belong together (patient, car, stack), so that none is on two sides of a split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from ushape import io
from ushape.data.duplicates import Duplicates, merge_groups
from ushape.data.layouts.names import SPLIT_WORDS
from ushape.io import dicom
from ushape.types import Case

Kind = Literal["table", "patient", "folder", "prefix", "stack", "single"]

BLOCK = 3
"""Neighboring sections of a stack that are kept together."""

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
    """Groups that a table states, else the patients of DICOM files, else by folder, else by a
    common name before the last number, else as a stack of neighboring sections, else each image
    by itself.

    A folder that states the split (`train/`) is no group. The text says which rules were tried
    in vain.

    Args:
        thumbnail_of: A small gray picture (T, T) of a case; tells a stack from single images.
    """
    if all(case.group for case in cases):
        keys = [case.group for case in cases]
        return _group_by(cases, keys, "table", f"{len(set(keys))}, as stated ({_each(keys)})")
    if all(io.is_dicom(case.image) for case in cases):
        keys = [dicom.patient_of(case.image) for case in cases]
        if all(keys):
            text = f"{len(set(keys))}, by the PatientID of the DICOM files ({_each(keys)})"
            return _group_by(cases, keys, "patient", text)
    rules: tuple[tuple[Kind, str, Callable[[Case], str]], ...] = (
        ("folder", "folder", _folder_key),
        ("prefix", "the name before the last number", _prefix_key),
    )
    in_vain = []
    for kind, words, key_of in rules:
        keys = [key_of(case) for case in cases]
        if _are_groups(keys):
            text = f"{len(set(keys))}, by {words} ({_each(keys)}), e.g. {keys[0]}"
            return _group_by(cases, keys, kind, text)
        if why := _why_in_vain(keys, words):
            in_vain.append(why)
    if _is_stack(_one_part(cases), thumbnail_of):
        return _group_stack(cases)
    tried = f" ({'; '.join(in_vain)})" if in_vain else ""
    text = f"none found, each of the {len(cases)} images by itself{tried}"
    return _group_by(cases, [case.id for case in cases], "single", text)


def _are_groups(keys: Sequence[str]) -> bool:
    """At least two groups, of two images on average, and none left over."""
    count = len(set(keys))
    return count >= 2 and len(keys) >= 2 * count and "" not in keys


def _why_in_vain(keys: Sequence[str], words: str) -> str:
    """Says what a rule made of the names; '' where they do not fit it at all."""
    if "" in keys:
        return ""
    if len(set(keys)) == 1:
        return f"by {words} all would be one group, {keys[0]}"
    if len(set(keys)) == len(keys):
        return f"by {words} each would be alone"
    return f"by {words} most would be alone, {len(set(keys))} groups"


def _group_by(cases: Sequence[Case], keys: Sequence[str], kind: Kind, text: str) -> Grouping:
    return Grouping(
        cases=[replace(case, group=key) for case, key in zip(cases, keys, strict=True)],
        kind=kind,
        noun="images" if kind == "single" else "groups",
        text=text,
    )


def _each(keys: Sequence[str]) -> str:
    sizes = Counter(keys).values()
    each = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return f"{each} images each"


def _own_name(case: Case) -> str:
    """The id without the folder that states the split: that is no patient."""
    first, slash, rest = case.id.partition("/")
    return (
        rest if case.split and slash and SPLIT_WORDS.get(first.lower()) == case.split else case.id
    )


def _folder_key(case: Case) -> str:
    return _own_name(case).rpartition("/")[0]


def _prefix_key(case: Case) -> str:
    """`car_04` -> `car`; '' where the name does not end in a number after something."""
    match = _INDEX.match(_own_name(case))
    if match is None or not match["joint"]:
        return ""
    return match["prefix"]


def _is_stack(
    cases: Sequence[Case], thumbnail_of: Callable[[Case], np.ndarray], margin: float = 0.1
) -> bool:
    """Numbered one after the other, and neighbors look clearly more alike than others."""
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
    neighbors = float(np.median(np.diag(alike, 1)))
    far = np.triu(np.ones_like(alike, dtype=bool), k=max(3, len(cases) // 4))
    return neighbors > float(np.median(alike[far])) + margin and neighbors > _by_chance(alike)


def _by_chance(alike: np.ndarray, orders: int = 200) -> float:
    """What neighbors reach in all but 3 % of random orders: a few images may be alike by luck."""
    rng = np.random.default_rng(0)
    shuffled = (rng.permutation(len(alike)) for _ in range(orders))
    return float(np.quantile([np.median(alike[o[1:], o[:-1]]) for o in shuffled], 0.97))


def _one_part(cases: Sequence[Case]) -> Sequence[Case]:
    """The training cases where the split is given: other parts may count from 1 again."""
    return [case for case in cases if case.split == "train"] or cases


def _group_stack(cases: Sequence[Case]) -> Grouping:
    """Contiguous blocks of sections, of nearly equal size, of each given part by itself."""
    groups: dict[str, str] = {}
    for split in sorted({case.split for case in cases}):
        part = [case for case in cases if case.split == split]
        ordered = sorted(part, key=lambda case: (_number_of(case) or 0, case.id))
        blocks = np.array_split(np.arange(len(ordered)), max(3, len(ordered) // BLOCK))
        for number, block in enumerate(block for block in blocks if len(block)):
            first, last = ordered[block[0]].id, ordered[block[-1]].id
            for index in block:
                # The number first, so that sorting the groups keeps the order of the sections.
                groups[ordered[index].id] = f"{number:04d} ({first} to {last})"
    count = len(set(groups.values()))
    return Grouping(
        cases=[replace(case, group=groups[case.id]) for case in cases],
        kind="stack",
        noun="blocks of sections",
        text=f"one stack of {len(cases)} neighboring sections (they look alike), cut into "
        f"{count} contiguous blocks{_mixed_sections(cases)}",
    )


def _mixed_sections(cases: Sequence[Case]) -> str:
    """Warns of a given split that tears neighboring sections apart again and again."""
    numbers = [_number_of(case) for case in cases]
    ordered = sorted(cases, key=lambda case: (_number_of(case) or 0, case.id))
    torn = sum(one.split != other.split for one, other in pairwise(ordered))
    if len(set(numbers)) < len(numbers) or torn < len({case.split for case in cases}):
        return ""
    return f"; the given split tears {torn} pairs of neighbors apart, so its score is too good"


def _number_of(case: Case) -> int | None:
    match = _INDEX.match(case.id)
    return int(match["number"]) if match else None


def merge_groups_sharing_duplicates(
    grouping: Grouping, duplicates: Iterable[Duplicates]
) -> Grouping:
    """Groups that share an image, if only nearly the same one, become one: else it could lie on
    two sides of a split."""
    before = {case.id: case.group for case in grouping.cases}
    after = merge_groups(before, duplicates)
    joined = len(set(before.values())) - len(set(after.values()))
    if grouping.kind == "stack" or not joined:
        return grouping  # Blocks of a stack touch anyway.
    cases = [replace(case, group=after[case.id]) for case in grouping.cases]
    text = f"{grouping.text}; {joined} of them joined to others with which they share images"
    return replace(grouping, cases=cases, text=text)
