"""Groups that the user specifies for all cases: a regular expression, a column, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ushape.errors import ConfigError, DataError
from ushape.formatting import pluralize
from ushape.types import Case

NONE = "none"
"""Value of the option that makes each image its own group."""


def stated_keys(cases: Sequence[Case], option: str) -> tuple[list[str], str]:
    """Return the group of each case and the rule in words.

    Args:
        option: "none" for each image by itself; the name of a column of the table; otherwise a
            regular expression that is searched for in the id of each case. Its first group in
            parentheses, or the whole match, is the group of the case.

    Raises:
        ConfigError: if the option is neither a column nor a valid regular expression.
        DataError: if a case has no value in the column, or does not match the expression.
    """
    if option == NONE:
        return [case.id for case in cases], "each image by itself, as specified with groups: none"
    columns = sorted({name for case in cases for name in case.metadata})
    column = option.strip().lower()
    if column == "group" and all(case.group for case in cases):
        return [case.group for case in cases], "by the column group of the table"
    if column in columns:
        return _by_column(cases, column), f"by the column {column} of the table"
    return _by_pattern(cases, option, columns), f"by the regular expression {option}"


def _by_column(cases: Sequence[Case], column: str) -> list[str]:
    keys = [case.metadata.get(column, "") for case in cases]
    bare = [case.id for case, key in zip(cases, keys, strict=True) if not key]
    if bare:
        raise DataError(
            f"The column {column} is empty for {pluralize(len(bare), 'image')}, first {bare[0]}.",
            code="incomplete_column",
            hint="Fill in the column for every image, or choose another one with --groups.",
        )
    return keys


def _by_pattern(cases: Sequence[Case], pattern: str, columns: Sequence[str]) -> list[str]:
    known = f" The table has the columns {', '.join(columns)}." if columns else ""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"--groups {pattern} is not a valid regular expression: {error}.{known}",
            code="invalid_group_pattern",
            hint="Write e.g. --groups '^([^_]+)_' for the name before the first underscore.",
        ) from None
    matches = [compiled.search(case.id) for case in cases]
    keys = [_key_in(match) if match else "" for match in matches]
    bare = [case.id for case, key in zip(cases, keys, strict=True) if not key]
    if bare:
        count = "none" if len(bare) == len(cases) else f"only {len(cases) - len(bare)}"
        raise DataError(
            f"--groups {pattern} matches {count} of the {len(cases)} case ids; the first one "
            f"without a match is {bare[0]}.{known}",
            code="group_pattern_unmatched",
            hint="Write a regular expression that finds the group in every id, such as "
            "'^([^_]+)_' for the name before the first underscore, or the name of a column of the "
            "table, or none.",
        )
    return keys


def _key_in(match: re.Match[str]) -> str:
    return (match[1] or "") if match.re.groups else match[0]
