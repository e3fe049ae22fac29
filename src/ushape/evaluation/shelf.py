"""Room for the pictures of some cases while more are judged."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from ushape.evaluation.pictures import CasePicture
from ushape.evaluation.score import CaseScore, mean_dice

MOST_PICTURES = 100
"""Spread over the Dice. A picture takes up to 1.3 MB until it is stored."""

MOST_DOUBTED = 24
"""Of those masks that are most likely to be wrong."""


@dataclass
class Shelf:
    """Keeps pictures of cases whose Dice spreads over all that was seen, the extremes always, and
    of those whose masks are doubted most."""

    most: int = MOST_PICTURES
    _shown: list[tuple[float, int, CasePicture]] = field(default_factory=list)
    """By Dice, then in the order of their arrival."""

    _doubted: list[tuple[float, int, CasePicture]] = field(default_factory=list)
    """The same by doubt."""

    _arrived: int = 0

    def add(self, scores: Sequence[CaseScore], picture: CasePicture) -> None:
        """Makes room, where it is full, by what resembles its neighbours most.

        Args:
            scores: Of the case, one for each class. Where nothing was there and nothing was found,
                the picture is not kept.
        """
        dice, doubt = mean_dice(scores), doubt_about(scores)
        self._arrived += 1
        if dice is not None:
            self._insert(self._shown, dice, picture)
            if len(self._shown) > self.most:
                del self._shown[self._most_redundant()]
        if doubt > 0:
            self._insert(self._doubted, doubt, picture)
            del self._doubted[:-MOST_DOUBTED]

    @property
    def pictures(self) -> list[CasePicture]:
        """From the worst to the best, then further ones of doubted masks."""
        found = {picture.case: picture for _, _, picture in (*self._shown, *self._doubted)}
        return list(found.values())

    def _insert(
        self, row: list[tuple[float, int, CasePicture]], value: float, picture: CasePicture
    ) -> None:
        bisect.insort(row, (value, self._arrived, picture), key=lambda one: one[:2])

    def _most_redundant(self) -> int:
        """The place between the two neighbours that are closest to each other."""
        dice = [value for value, _, _ in self._shown]
        gaps = [after - before for before, after in itertools.pairwise(dice)]
        wide = [left + right for left, right in itertools.pairwise(gaps)]
        return 1 + wide.index(min(wide))


def doubt_about(scores: Sequence[CaseScore]) -> float:
    """How likely a case's mask is wrong: the most doubted of its classes."""
    return max((score.measures.get("mask_doubt") or 0.0 for score in scores), default=0.0)
