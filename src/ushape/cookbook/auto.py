"""The default: everything planned from the data, the machine and the minutes."""

from __future__ import annotations

from ushape.planning.recipe import Recipe


def auto() -> Recipe:
    """Planned from the data, the machine and the minutes. No paper: ours."""
    return Recipe(name="auto")
