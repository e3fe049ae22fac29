"""A split that the user defines in a file."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ushape.data.assignment import members_of
from ushape.data.splits import (
    PARTS,
    Splits,
    describe_missing,
    describe_sizes,
    ids_of_parts,
    parts_of_groups,
)
from ushape.errors import DataError, RunError
from ushape.formatting import pluralize, reason
from ushape.types import Case

UNUSED = "unused"
"""Key of the cases that are in none of the subsets."""


def load_given_splits(path: Path, cases: Sequence[Case], needed: Sequence[str] = PARTS) -> Splits:
    """Load a split from a splits.json of a run, edited or not.

    Cases that it lists as "unused" are in none of the subsets.

    Args:
        path: File with the lists train, validation, test and optionally unused.
        needed: Subsets that must not be empty.

    Raises:
        RunError: if the file cannot be read or lacks a list.
        DataError: if a needed subset is empty, if an id is unknown, listed twice or missing, or if
            the cases of a group are in different subsets.
    """
    parts = _read_parts(path)
    listed = Counter(case_id for ids in parts.values() for case_id in ids)
    known = {case.id: case.group for case in cases}
    for wrong, what, hint in (
        (sorted(listed.keys() - known.keys()), "unknown cases", "Use the ids in cases.json."),
        (sorted(i for i in listed if listed[i] > 1), "repeated cases", "List each case once."),
        (
            sorted(known.keys() - listed.keys()),
            "missing cases",
            "Add them to train, validation, test or unused.",
        ),
    ):
        if wrong:
            near = difflib.get_close_matches(wrong[0], known.keys() - listed.keys(), n=1)
            nearest = f"; the most similar is {near[0]}" if near and near[0] != wrong[0] else ""
            raise DataError(
                f"{path}: {len(wrong)} {what}, first {wrong[0]}{nearest}.",
                code="split_cases_mismatch",
                hint=hint,
            )
    for part in needed:
        if not parts[part]:
            raise DataError(
                f"{path}: there are no cases for {part}.",
                code="empty_part",
                hint="Training, validation and test need at least one group each, unless "
                "split.validation_fraction or split.test_fraction is 0.",
            )
    part_of_case = {case_id: part for part in PARTS for case_id in parts[part]}
    members = members_of([case for case in cases if case.id in part_of_case])
    part_of = parts_of_groups(members, part_of_case, str(path))
    ids = ids_of_parts(members, part_of)
    unused = tuple(sorted(parts[UNUSED]))
    left = f" Not used: {pluralize(len(unused), 'case')}." if unused else ""
    text = (
        f"{describe_sizes(ids, part_of, 'table')}{left} This split is defined in {path.name}."
        f"{describe_missing(ids)}"
    )
    return Splits(**ids, text=text, unused=unused)


def _read_parts(path: Path) -> dict[str, list[str]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        parts = {part: values[part] for part in PARTS} | {UNUSED: values.get(UNUSED, [])}
        if not all(isinstance(ids, list) for ids in parts.values()):
            raise TypeError("train, validation and test must be lists")
        return {part: [str(case_id) for case_id in ids] for part, ids in parts.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is not a split: {reason(error)}.",
            code="invalid_split_file",
            hint='Write {"train": [...], "validation": [...], "test": [...]} with case ids.',
        ) from None
