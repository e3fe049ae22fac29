"""Grouping of cases that belong together (patient, car, stack) and must not be split apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from ushape import io
from ushape.data.duplicates import Duplicates, merge_groups
from ushape.data.layouts.names import SPLIT_WORDS
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.io import dicom
from ushape.types import Case

GroupingKind = Literal["table", "patient", "folder", "prefix", "stack", "single"]

SECTIONS_PER_BLOCK = 3
"""Number of neighboring sections of a stack that form one group."""

_INDEX = re.compile(r"^(?P<prefix>.*?)(?P<separator>[_\-. ]?)(?P<number>\d+)$")


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Cases with their groups, and the rule by which the groups were inferred."""

    cases: list[Case]
    kind: GroupingKind
    noun: str
    """Plural noun for the groups in sentences: "groups", "images", "blocks of sections"."""

    text: str
    """Number of groups and the rule, for the user."""


def infer_groups(cases: Sequence[Case], thumbnails: Mapping[str, np.ndarray]) -> Grouping:
    """Infer the groups of the cases by the first rule that fits.

    The rules are, in this order: groups stated in a table; patients of DICOM files; folders; a
    common name before the last number; a stack of neighboring sections; each image by itself.
    A folder that states the split (`train/`) is not a group. The text says which rules did not fit.

    Args:
        thumbnails: Small gray image (T, T) by case id; distinguishes a stack from single images.
    """
    if not cases:
        return Grouping(cases=[], kind="single", noun="images", text="none")
    if all(case.group for case in cases):
        keys = [case.group for case in cases]
        return _group_by(cases, keys, "table", f"{len(set(keys))}, as stated ({_each(keys)})")
    if all(case.page is not None for case in cases):
        return _group_stack(cases)
    if all(io.is_dicom(case.image) for case in cases):
        keys = [dicom.patient_of(case.image) for case in cases]
        if all(keys):
            text = f"{len(set(keys))}, by the PatientID of the DICOM files ({_each(keys)})"
            return _group_by(cases, keys, "patient", text)
    rules: tuple[tuple[GroupingKind, str, Callable[[Case], str]], ...] = (
        ("folder", "folder", lambda case: _own_name(case).rpartition("/")[0]),
        ("prefix", "the name before the last number", _prefix_key),
    )
    unfit = []
    for kind, words, key_of in rules:
        keys = [key_of(case) for case in cases]
        if _are_groups(keys):
            text = f"{len(set(keys))}, by {words} ({_each(keys)}), e.g. {keys[0]}"
            return _group_by(cases, keys, kind, text)
        if why := _why_unfit(keys, words):
            unfit.append(why)
    # If the data state a split, other parts may restart at 1.
    if _is_stack([case for case in cases if case.split == "train"] or cases, thumbnails):
        return _group_stack(cases)
    tried = "; ".join(unfit) or "neither folders nor file names indicate larger groups"
    text = f"each of the {len(cases)} images is its own group, because {tried}"
    return _group_by(cases, [case.id for case in cases], "single", text)


def _are_groups(keys: Sequence[str]) -> bool:
    """Return whether every image has a group, of at least two, with two images on average."""
    count = len(set(keys))
    return count >= 2 and len(keys) >= 2 * count and "" not in keys


def _why_unfit(keys: Sequence[str], words: str) -> str:
    """Describe the groups that a rule would make; '' if it would join no images."""
    if "" in keys or len(set(keys)) == len(keys):
        return ""
    if len(set(keys)) == 1:
        return f"grouping by {words} would put all of them in one group ({keys[0]})"
    return f"grouping by {words} would give {len(set(keys))} groups, most with a single image"


def _group_by(
    cases: Sequence[Case], keys: Sequence[str], kind: GroupingKind, text: str
) -> Grouping:
    return Grouping(
        cases=[replace(case, group=key) for case, key in zip(cases, keys, strict=True)],
        kind=kind,
        noun="images" if kind == "single" else "groups",
        text=text,
    )


def _each(keys: Sequence[str]) -> str:
    sizes = Counter(keys).values()
    fewest = "" if min(sizes) == max(sizes) else f"{min(sizes)} to "
    return f"{fewest}{pluralize(max(sizes), 'image')} each"


def _own_name(case: Case) -> str:
    """Return the id without the folder that states the split, which is not a patient."""
    first, slash, rest = case.id.partition("/")
    return (
        rest if case.split and slash and SPLIT_WORDS.get(first.lower()) == case.split else case.id
    )


def _prefix_key(case: Case) -> str:
    """Return `car` for `car_04`; '' if the name does not end in a number after a prefix."""
    match = _INDEX.match(_own_name(case))
    return match["prefix"] if match and match["separator"] else ""


def _is_stack(
    cases: Sequence[Case], thumbnails: Mapping[str, np.ndarray], margin: float = 0.1
) -> bool:
    """Return whether cases are numbered consecutively and neighbors are clearly more similar."""
    numbers = [_number_of(case) for case in cases]
    if len(cases) < 6 or any(number is None for number in numbers):
        return False
    order = np.argsort(np.asarray(numbers, dtype=np.int64))
    steps = np.diff(np.asarray(numbers, dtype=np.int64)[order])
    if np.median(steps) != 1:
        return False
    pictures = np.stack([thumbnails[cases[index].id].ravel() for index in order])
    pictures = pictures - pictures.mean(axis=0)  # Only differences between images matter.
    pictures /= np.maximum(np.linalg.norm(pictures, axis=1, keepdims=True), 1e-9)
    similarity = pictures @ pictures.T
    neighbors = float(np.median(np.diag(similarity, 1)))
    far = np.triu(np.ones_like(similarity, dtype=bool), k=max(3, len(cases) // 4))
    least = max(float(np.median(similarity[far])) + margin, _by_chance(similarity))
    return neighbors > least


def _by_chance(similarity: np.ndarray, orders: int = 200) -> float:
    """Return the 97 % quantile of the similarity of neighbors in random orders."""
    rng = np.random.default_rng(0)
    shuffled = (rng.permutation(len(similarity)) for _ in range(orders))
    return float(np.quantile([np.median(similarity[o[1:], o[:-1]]) for o in shuffled], 0.97))


def _group_stack(cases: Sequence[Case]) -> Grouping:
    """Cut each stated part of a stack into contiguous blocks of nearly equal size."""
    groups: dict[str, str] = {}
    for split in sorted({case.split for case in cases}):
        part = [case for case in cases if case.split == split]
        ordered = sorted(part, key=lambda case: (_number_of(case) or 0, case.id))
        blocks = np.array_split(np.arange(len(ordered)), max(3, len(ordered) // SECTIONS_PER_BLOCK))
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
        text=f"one stack of {len(cases)} neighboring sections, divided into "
        f"{count} contiguous blocks{_mixed_sections(cases)}",
    )


def _mixed_sections(cases: Sequence[Case]) -> str:
    """Describe how often a stated split separates neighboring sections; '' if rarely."""
    numbers = [_number_of(case) for case in cases]
    ordered = sorted(cases, key=lambda case: (_number_of(case) or 0, case.id))
    separated = sum(one.split != other.split for one, other in pairwise(ordered))
    if len(set(numbers)) < len(numbers) or separated < len({case.split for case in cases}):
        return ""
    return f"; the given split separates {separated} pairs of neighbors, so its scores are too high"


def _number_of(case: Case) -> int | None:
    match = _INDEX.match(case.id)
    return int(match["number"]) if match else None


def merge_groups_sharing_duplicates(
    grouping: Grouping, duplicates: Iterable[Duplicates]
) -> Grouping:
    """Merge groups that share a duplicate image, so that a split cannot separate the copies."""
    before = {case.id: case.group for case in grouping.cases}
    after = merge_groups(before, duplicates)
    left = len(set(after.values()))
    if grouping.kind == "stack" or left == len(set(before.values())):
        return grouping  # Neighboring blocks of a stack are similar in any case.
    cases = [replace(case, group=after[case.id]) for case in grouping.cases]
    text = f"{grouping.text}; {left} remain after merging those that share duplicate images"
    return replace(grouping, cases=cases, text=text)


def refuse_too_few(groups: int, images: int) -> None:
    """Check that the data can be split into training, validation and test groups.

    Raises:
        DataError: if there are fewer than three groups.
    """
    if groups < 3:
        raise DataError(
            f"The data have {pluralize(images, 'image')} in {pluralize(groups, 'group')}; training,"
            " validation and test need at least one group each.",
            code="too_few_groups",
            hint="Annotate images of at least three patients, dishes or scenes. With images of "
            "one group in both training and test, the scores would be invalid.",
        )
