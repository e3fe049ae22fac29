"""Regular expression of groups that were inferred from names, for the images of a prediction."""

from __future__ import annotations

import re
from collections.abc import Mapping

PATTERNS = (
    r"([^/_]+)_[^/]*$",
    r"([^/]+)_[^/_]*$",
    r"([^/-]+)-[^/]*$",
    r"([^/]+)-[^/-]*$",
    r"([^/]*[^/\d])\d+$",
)
"""Parts of the name of an image without its folders: before the first or last underscore or hyphen,
and before the number at the end."""


def find_name_rule(group_of: Mapping[str, str]) -> str | None:
    """Return the first of PATTERNS that gives images the groups that they have.

    Args:
        group_of: Group by case id.

    Returns:
        None if no pattern does, or if all images are one group, or each one is a group.
    """
    if not 1 < len(set(group_of.values())) < len(group_of):
        return None
    return next((pattern for pattern in PATTERNS if _fits(pattern, group_of)), None)


def _fits(pattern: str, group_of: Mapping[str, str]) -> bool:
    pairs = set[tuple[str, str]]()
    for case_id, group in group_of.items():
        match = re.search(pattern, case_id)
        if match is None:
            return False
        pairs.add((match[1], group))
    # Each part of a name belongs to one group, and each group to one part.
    return len(pairs) == len({part for part, _ in pairs}) == len({group for _, group in pairs})
