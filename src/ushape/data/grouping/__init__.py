"""Grouping of cases that belong together (patient, car, stack) and must not be split apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from ushape import io
from ushape.data.duplicates import Duplicates, merge_groups
from ushape.data.grouping.names import MIN_SPLIT_GROUPS, NameGroups, find_name_groups
from ushape.data.grouping.numbers import are_sampled_evenly, find_number_runs
from ushape.data.grouping.similarity import are_alike, are_neighbors_alike, centered_pictures
from ushape.data.grouping.stated import stated_keys
from ushape.data.layouts.names import SPLIT_WORDS
from ushape.errors import DataError
from ushape.formatting import natural_order, pluralize
from ushape.io import dicom
from ushape.types import Case

GroupingKind = Literal[
    "table", "option", "patient", "folder", "prefix", "stack", "blocks", "single"
]

SECTIONS_PER_BLOCK = 3
"""Number of neighboring sections of a stack that form one group."""

MAX_BLOCKS = 8
"""If there are too few groups, largest number of contiguous blocks into which one is divided."""

MIN_SECTIONS = 6
"""Smallest number of images that can be a stack."""

OVERRULE = "use --groups with a regular expression, a column of the table, or none"

_INDEX = re.compile(r"^(?P<prefix>.*?)(?P<separator>[_\-. ]?)(?P<number>\d+)$")


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Cases with their groups, and the rule by which the groups were found."""

    cases: list[Case]
    kind: GroupingKind
    noun: str
    """Plural noun for the groups in sentences: "groups", "images", "blocks of sections"."""

    text: str
    """Number of groups and the rule, for the user."""

    is_stated: bool = False
    """Whether the groups are defined by the user or the dataset, rather than inferred."""

    warning: str = ""
    """How meaningful the scores are, if groups were inferred that the split cannot keep
    together."""

    @property
    def description(self) -> str:
        """Sentences about the number of groups, the rule, and how to override inferred groups."""
        hint = "" if self.is_stated else f" To change this, {OVERRULE}."
        return f"Groups: {self.text}.{hint}"


def find_groups(
    cases: Sequence[Case], thumbnails: Mapping[str, np.ndarray], option: str | None = None
) -> Grouping:
    """Return the given groups, or infer them by the first rule that fits.

    Groups are given by the option, a table, or the patients of DICOM files. The rules are, in this
    order: runs of close numbers across the groups by name (`grouping.numbers`); leading folders and
    fields of the names (`grouping.names`); a stack of neighboring sections; blocks of images that
    are numbered in equal steps; runs of close numbers; each image by itself.

    A folder that defines the split (`train/`) is not a group. If the names indicate fewer than
    three groups, these are divided into blocks of neighbors, with a warning.

    Args:
        thumbnails: Small gray image (T, T) by case id; shows which images are similar.
        option: Regular expression, column of the table or "none"; see `stated_keys`.

    Raises:
        ConfigError: if the option is neither a column nor a valid expression.
        DataError: if the option does not give every case a group.
    """
    if not cases:
        return Grouping(cases=[], kind="single", noun="images", text="none")
    if stated := _state_groups(cases, option):
        return stated
    if any(case.page is not None for case in cases):
        return _group_files(cases, thumbnails)
    return _infer_groups(cases, thumbnails)


def _group_files(cases: Sequence[Case], thumbnails: Mapping[str, np.ndarray]) -> Grouping:
    """Infer the groups of files from one time point of each."""
    whole: dict[Path, Case] = {}
    pictures: dict[str, np.ndarray] = {}
    for case in cases:
        if case.image not in whole:
            name = case.id if case.page is None else case.id.rpartition("/")[0]
            whole[case.image] = replace(case, id=name, page=None)
            pictures[name] = thumbnails[case.id]
    found = find_groups(list(whole.values()), pictures)
    group_of = {case.image: case.group for case in found.cases}
    if found.kind == "single":
        keys = [group_of[case.image] for case in cases]
        text = f"{len(whole)}, by the files of the time points ({_each(keys)})"
        return _group_by(cases, keys, "folder", text)
    return replace(
        found,
        cases=[replace(case, group=group_of[case.image]) for case in cases],
        text=f"{found.text}; the time points of a file are in one group",
    )


def _state_groups(cases: Sequence[Case], option: str | None) -> Grouping | None:
    if option is not None:
        keys, rule = stated_keys(cases, option)
        kind: GroupingKind = "single" if option == "none" else "option"
        text = f"{len(set(keys))}, {rule} ({_each(keys)})"
        return _group_by(cases, keys, kind, text, is_stated=True)
    if all(case.group for case in cases):
        keys = [case.group for case in cases]
        text = f"{len(set(keys))}, as defined by the dataset ({_each(keys)})"
        return _group_by(cases, keys, "table", text, is_stated=True)
    if all(case.page is not None for case in cases) and len({case.image for case in cases}) == 1:
        return _group_stack(cases)
    if all(io.is_dicom(case.image) for case in cases):
        keys = [dicom.patient_of(case.image) for case in cases]
        if all(keys):
            text = f"{len(set(keys))}, by the PatientID of the DICOM files ({_each(keys)})"
            return _group_by(cases, keys, "patient", text, is_stated=True)
    return None


def _infer_groups(cases: Sequence[Case], thumbnails: Mapping[str, np.ndarray]) -> Grouping:
    names = [_own_name(case) for case in cases]
    first_of = {name: place for place, name in reversed(list(enumerate(names)))}
    unique = list(first_of)
    pictures = centered_pictures([thumbnails[cases[place].id] for place in first_of.values()])

    def alike(keys: Sequence[str]) -> bool:
        return are_alike(keys, pictures)

    found = find_name_groups(unique, alike) or NameGroups(())
    if found.keys:
        if runs := () if found.is_named else find_number_runs(unique, found.keys, alike):
            return _group_runs(cases, names, dict(zip(unique, runs, strict=True)), found.keys)
        return _group_by_name(cases, names, dict(zip(unique, found.keys, strict=True)), found)
    # If the dataset defines a split, other subsets may restart at 1.
    if _is_stack([case for case in cases if case.split == "train"] or cases, thumbnails):
        return _group_stack(cases)
    coarse = dict(zip(unique, found.coarse, strict=True)) if found.coarse else {}
    if coarse and all(_INDEX.match(name) for name in names):
        return _group_blocks(cases, [coarse[name] for name in names])
    if not coarse and are_sampled_evenly(unique):
        return _group_blocks(cases, [""] * len(cases))
    if not coarse and (runs := find_number_runs(unique, (), alike)):
        return _group_runs(cases, names, dict(zip(unique, runs, strict=True)), found.kinds)
    return _group_singles(cases, found.kinds)


def _group_by_name(
    cases: Sequence[Case], names: Sequence[str], key_of: Mapping[str, str], found: NameGroups
) -> Grouping:
    keys = [key_of[name] for name in names]
    is_folder = all(name.startswith(f"{key}/") for name, key in zip(names, keys, strict=True))
    is_start = all(name.startswith(key) for name, key in zip(names, keys, strict=True))
    of_names = "the beginning of the names" if is_start else "a part of the names"
    rule = "folder" if is_folder else of_names
    sizes = Counter(keys)
    example = max(sorted(sizes), key=lambda key: sizes[key])
    members = [name for name, key in zip(names, keys, strict=True) if key == example][:2]
    text = (
        f"{len(sizes)}, by {rule} ({_each(keys)}), e.g. {example} for {' and '.join(members)}"
        f"{_describe_kinds(found.kinds)}"
    )
    warning = ""
    if found.coarse:
        larger = sorted(set(found.coarse))
        warning = (
            f"The names also indicate {len(larger)} larger groups ({', '.join(larger)}), which are "
            f"too few to split by. The cases are split by {len(sizes)} smaller groups, so the "
            "scores apply to these larger groups and not to new ones. If this is wrong, "
            f"{OVERRULE}."
        )
    kind: GroupingKind = "folder" if is_folder else "prefix"
    return _keep_split(_group_by(cases, keys, kind, text, warning=warning), names)


def _group_runs(
    cases: Sequence[Case], names: Sequence[str], run_of: Mapping[str, str], kinds: Sequence[str]
) -> Grouping:
    """Group cases with close numbers; `kinds` are fields that are not the groups."""
    keys = [run_of[name] for name in names]
    sizes = Counter(keys)
    example = max(sorted(sizes, key=natural_order), key=lambda key: sizes[key])
    members = [name for name, key in zip(names, keys, strict=True) if key == example][:2]
    text = (
        f"{len(sizes)}, by sequences of close numbers in the names, whose images are similar "
        f"({_each(keys)}), e.g. {' and '.join(members)}{_describe_kinds(sorted(set(kinds)))}"
    )
    return _keep_split(_group_by(cases, keys, "prefix", text), names)


def _keep_split(grouping: Grouping, names: Sequence[str]) -> Grouping:
    """Divide inferred groups that a given split separates, and warn about them."""
    parts: dict[str, set[str]] = {}
    for case in grouping.cases:
        parts.setdefault(case.group, set()).add(case.split)
    torn = sorted(group for group, own in parts.items() if len(own) > 1)
    if not torn:
        return grouping
    cases = [
        replace(case, group=f"{case.group} ({case.split})") if case.group in torn else case
        for case in grouping.cases
    ]
    if len(set(names)) < len(names):  # The numbering may restart in each subset.
        return replace(grouping, cases=cases)
    warning = (
        f"The given split separates {pluralize(len(torn), 'group')} that the names indicate, e.g. "
        f"{torn[0]}. If their images belong together, the scores are too high: move them to one "
        f"subset. Otherwise, {OVERRULE}."
    )
    return replace(grouping, cases=cases, warning=f"{grouping.warning} {warning}".strip())


def _group_singles(
    cases: Sequence[Case],
    kinds: Sequence[str],
    reason: str = "; the names do not indicate larger groups",
) -> Grouping:
    why = _describe_kinds(kinds) or reason
    each = f"each of the {len(cases)} images" if len(cases) > 1 else "the only image"
    text = f"{each} is its own group{why}"
    return _group_by(cases, [case.id for case in cases], "single", text)


def _describe_kinds(kinds: Sequence[str]) -> str:
    if not kinds:
        return ""
    more = ", ..." if len(kinds) > 5 else ""
    return f"; {', '.join(kinds[:5])}{more} are regarded as kinds of images, not as groups"


def _group_by(
    cases: Sequence[Case],
    keys: Sequence[str],
    kind: GroupingKind,
    text: str,
    *,
    is_stated: bool = False,
    warning: str = "",
) -> Grouping:
    return Grouping(
        cases=[replace(case, group=key) for case, key in zip(cases, keys, strict=True)],
        kind=kind,
        noun="images" if kind == "single" else "groups",
        text=text,
        is_stated=is_stated,
        warning=warning,
    )


def _each(keys: Sequence[str]) -> str:
    sizes = Counter(keys).values()
    fewest = "" if min(sizes) == max(sizes) else f"{min(sizes)} to "
    return f"{fewest}{pluralize(max(sizes), 'image')} each"


def _own_name(case: Case) -> str:
    """Return the id without the folder that defines the split, which is not a patient."""
    first, slash, rest = case.id.partition("/")
    return (
        rest if case.split and slash and SPLIT_WORDS.get(first.lower()) == case.split else case.id
    )


def _is_stack(cases: Sequence[Case], thumbnails: Mapping[str, np.ndarray]) -> bool:
    """Return whether the cases are numbered one by one and neighbors are clearly more similar."""
    numbers = [number for case in cases if (number := _number_of(case)) is not None]
    if len(cases) < MIN_SECTIONS or len(numbers) < len(cases):
        return False
    order = np.argsort(np.asarray(numbers, dtype=np.int64))
    if np.median(np.diff(np.asarray(numbers, dtype=np.int64)[order])) != 1:
        return False
    return are_neighbors_alike(centered_pictures([thumbnails[cases[i].id] for i in order]))


def _group_blocks(cases: Sequence[Case], coarse: Sequence[str]) -> Grouping:
    """Divide too few groups into contiguous blocks of images, separately in each given subset."""
    members: dict[tuple[str, str], list[Case]] = {}
    for case, key in zip(cases, coarse, strict=True):
        members.setdefault((key, case.split), []).append(case)
    groups: dict[str, str] = {}
    for (key, _), own in members.items():
        ids = sorted((case.id for case in own), key=natural_order)
        count = min(MAX_BLOCKS, max(MIN_SPLIT_GROUPS, len(ids) // SECTIONS_PER_BLOCK))
        for block in _cut(ids, count):
            groups |= dict.fromkeys(block, f"{key} ({block[0]} to {block[-1]})".strip())
    return _describe_blocks([replace(case, group=groups[case.id]) for case in cases], coarse)


def _describe_blocks(cases: list[Case], coarse: Sequence[str]) -> Grouping:
    keys, larger = [case.group for case in cases], sorted(set(coarse))
    blocks = f"{len(set(keys))} blocks of neighbor"
    shown, noun = ", ".join(larger), "groups"
    reason = (
        f"The names indicate only {pluralize(len(larger), 'group')} ({shown}); training, validation"
        f" and test need one each. The images are split by {blocks}s within them instead"
    )
    found = f"within {pluralize(len(larger), 'group')} indicated by the names ({shown})"
    if larger == [""]:
        noun = "videos"
        reason = (
            "The images are numbered in equal steps, like frames of a video. They are split by "
            f"{blocks}s"
        )
        found = "because they are numbered in equal steps"
    return Grouping(
        cases=cases,
        kind="blocks",
        noun="blocks of images",
        text=f"{blocks}ing images ({_each(keys)}) {found}",
        warning=f"{reason}, so the scores apply to other images of the same {noun}, not to new "
        f"{noun}. If the images do not belong together in this way, {OVERRULE}.",
    )


def _cut(ids: Sequence[str], count: int) -> list[list[str]]:
    """Divide ids into contiguous blocks of nearly equal size, each with at least one id."""
    blocks = np.array_split(np.arange(len(ids)), count)
    return [[ids[index] for index in block] for block in blocks if len(block)]


def _group_stack(cases: Sequence[Case]) -> Grouping:
    """Divide each given subset of a stack into contiguous blocks of nearly equal size."""
    groups: dict[str, str] = {}
    for split in sorted({case.split for case in cases}):
        part = [case for case in cases if case.split == split]
        ids = [case.id for case in sorted(part, key=lambda one: (_number_of(one) or 0, one.id))]
        count = max(MIN_SPLIT_GROUPS, len(ids) // SECTIONS_PER_BLOCK)
        for number, block in enumerate(_cut(ids, count)):
            # The number first, so that sorting the groups keeps the order of the sections.
            groups |= dict.fromkeys(block, f"{number:04d} ({block[0]} to {block[-1]})")
    count = len(set(groups.values()))
    is_time = any(case.page is not None and io.has_time_points(case.image) for case in cases)
    what = "time points" if is_time else "sections"
    return Grouping(
        cases=[replace(case, group=groups[case.id]) for case in cases],
        kind="stack",
        noun=f"blocks of {what}",
        text=f"one stack of {len(cases)} neighboring {what}, divided into "
        f"{count} contiguous blocks{_mixed_sections(cases)}",
    )


def _mixed_sections(cases: Sequence[Case]) -> str:
    """Describe how often a given split separates neighboring sections; '' if rarely."""
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
    """Merge groups that share a duplicate image, so that a split cannot separate the copies.

    Near duplicates never leave fewer than three groups: if merging would join nearly all groups
    that names indicate, each image is a group; otherwise only identical images are joined.
    """
    if grouping.kind in ("stack", "blocks"):
        return grouping  # Neighboring blocks are similar in any case.
    pairs = tuple(duplicates)
    whole = _merge(grouping, pairs)
    if _count(whole) >= MIN_SPLIT_GROUPS or _count(grouping) < MIN_SPLIT_GROUPS:
        return whole
    if not grouping.is_stated and grouping.kind != "single":
        reason = f", because most groups by name ({_names_of(grouping)}) share duplicate images"
        single = _merge(_group_singles(grouping.cases, (), reason), pairs)
        if _count(single) >= MIN_SPLIT_GROUPS:
            return single
    return _merge(grouping, [pair for pair in pairs if pair.is_exact])


def _merge(grouping: Grouping, duplicates: Sequence[Duplicates]) -> Grouping:
    split_of = {case.id: case.split for case in grouping.cases}
    # A given split is changed only for identical images.
    joined = [d for d in duplicates if d.is_exact or split_of[d.first] == split_of[d.second]]
    before = {case.id: case.group for case in grouping.cases}
    after = merge_groups(before, joined)
    left = len(set(after.values()))
    if left == len(set(before.values())):
        return grouping
    cases = [replace(case, group=after[case.id]) for case in grouping.cases]
    text = f"{grouping.text}; {left} remain after merging those that share duplicate images"
    return replace(grouping, cases=cases, text=text)


def _count(grouping: Grouping) -> int:
    return len({case.group for case in grouping.cases})


def _names_of(grouping: Grouping) -> str:
    names = sorted({case.group for case in grouping.cases})
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def refuse_too_few(groups: int, images: int, needed: int = MIN_SPLIT_GROUPS) -> None:
    """Check that the data can be split into training, validation and test groups.

    Args:
        needed: Number of parts, each of which needs a group.

    Raises:
        DataError: if there are fewer groups.
    """
    if groups < needed:
        raise DataError(
            f"The data have {pluralize(images, 'image')} in {pluralize(groups, 'group')}; training,"
            " validation and test need at least one group each.",
            code="too_few_groups",
            hint="Annotate images of at least three patients, dishes or scenes, or specify "
            "smaller groups with --groups. With images of one group in both training and "
            "test, the scores would be invalid for new groups. To train without scores, on "
            "all images: --set split.test_fraction=0 --set split.validation_fraction=0",
        )
