"""Comparison of the encodings of mask files: pixels are compared by value, or by color shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ushape.data.case_stats import CaseStats
from ushape.labels import LabelSpace
from ushape.labels.colors import color_text, colors_of
from ushape.types import MaskEncoding

NEARLY_WHITE = 250
"""Lowest gray value that means the same as 255 if no file has both."""

MOSTLY_FRAMED = 0.75
"""Share of masks with a value at their border above which it is regarded as the background."""


@dataclass(frozen=True)
class MaskReading:
    """Values of all masks in one notation: as they are stored, or as colors."""

    cases: Sequence[CaseStats]
    are_colors: bool
    """Whether the values are color codes, because encodings differ or masks have colors."""

    ignore: int | None = None
    """Value of pixels without annotation, as the user specifies it; they are not counted."""

    @cached_property
    def counts(self) -> list[dict[int, int]]:
        """Number of pixels of each value, by case."""
        return [self._translate(stats, stats.value_counts) for stats in self.cases]

    @cached_property
    def total(self) -> Counter[int]:
        """Number of pixels of each value over all cases."""
        return _sum(self.counts)

    @cached_property
    def background(self) -> int:
        """Value of the background if the others number objects: 0, or a negative lowest value.

        The latter must be the most common one at the border of nearly all masks. Otherwise it may
        mark pixels without annotation.
        """
        lowest = min(self.total, default=0)
        framed = sum(stats.frame_value == lowest for stats in self.cases)
        return lowest if lowest < 0 and framed > MOSTLY_FRAMED * len(self.cases) else 0

    @cached_property
    def ids(self) -> list[list[int]]:
        """Values of each mask that may number objects, ascending, so that the first ones are 1."""
        own = [sorted(set(counts) - {self.background, self.ignore}) for counts in self.counts]
        if self.background == 0:
            return own
        first = min((numbers[0] for numbers in own if numbers), default=1)
        return [[number - first + 1 for number in numbers] for numbers in own]

    @cached_property
    def inner(self) -> Counter[int]:
        """Number of pixels of each value whose neighbors all have the same value."""
        return _sum(self._translate(stats, stats.inner_counts) for stats in self.cases)

    @cached_property
    def encoding(self) -> MaskEncoding:
        """The most common encoding of masks that have foreground."""
        usual = [stats.encoding for stats in self.cases if len(stats.value_counts) > 1]
        kinds = Counter(usual or [stats.encoding for stats in self.cases])
        return kinds.most_common(1)[0][0]

    def show(self, value: int) -> str:
        """Return a value as text; colors as "#rrggbb"."""
        return color_text(value) if self.are_colors else str(value)

    def setting(self, values: Iterable[int]) -> str:
        """Return the option that lists classes, as it is typed in a shell."""
        if not self.are_colors:
            return f"--set labels.values=[{','.join(map(str, values))}]"
        listed = ",".join(f'"{color_text(value)}"' for value in values)
        return f"--set 'labels.values=[{listed}]'"

    def owners(self, values: Iterable[int]) -> tuple[str, ...]:
        """Return the ids of the cases whose masks have one of these values."""
        wanted = set(values)
        return tuple(
            stats.case.id
            for stats, own in zip(self.cases, self.counts, strict=True)
            if wanted & own.keys()
        )

    def share(self, value: int) -> float:
        """Return the share of a value among all pixels."""
        return self.total[value] / sum(self.total.values())

    def _translate(self, stats: CaseStats, counts: Mapping[int, int]) -> dict[int, int]:
        if not self.are_colors or not counts:
            return {value: count for value, count in counts.items() if value != self.ignore}
        codes = colors_of(np.fromiter(counts, dtype=np.int64), stats.encoding)
        found: Counter[int] = Counter()
        for code, count in zip(codes.tolist(), counts.values(), strict=True):
            found[code] += count
        return {code: count for code, count in found.items() if code != self.ignore}

    def write_as_usual(self, space: LabelSpace) -> tuple[LabelSpace, MaskEncoding]:
        """Return the space with the values of the most common encoding, and that encoding.

        If it cannot show all classes, they are written as colors.
        """
        if space.colors is None or space.values != space.colors or self.encoding.kind == "colors":
            return space, self.encoding
        table = colors_of(np.arange(256), self.encoding).tolist()
        used = {
            code
            for stats in self.cases
            if stats.encoding == self.encoding
            for code in stats.value_counts
        }
        if self.encoding.kind == "palette":  # Of equal colors, the index in use is the right one.
            table = [color if code in used else -1 for code, color in enumerate(table)]
        elif self.encoding.dtype == "bool":
            table = table[:2]
        if not set(space.colors) <= set(table):
            return space, MaskEncoding(kind="colors")
        values = tuple(table.index(color) for color in space.colors)
        return replace(space, values=values), self.encoding


def read_values(cases: Sequence[CaseStats], ignore: int | None = None) -> MaskReading:
    """Decide whether masks are compared by their stored values or by the colors that they show.

    Args:
        ignore: Value of pixels without annotation, as the user specifies it.
    """
    stored = MaskReading(cases, are_colors=False, ignore=ignore)
    shown = MaskReading(cases, are_colors=True, ignore=ignore)
    kinds = {stats.encoding.kind for stats in cases}
    if "colors" in kinds:
        return shown
    if kinds == {"palette"}:
        # Files that order the same colors differently share colors, not indices.
        conflict = _have_conflict([stats for stats in cases if stats.encoding.palette])
        return shown if conflict and len(shown.total) <= len(stored.total) else stored
    forms = {form_of(stats) for stats in cases}
    if len(forms) > 1 and not _agree(cases):
        return shown
    return stored


def form_of(stats: CaseStats) -> str:
    """Return how a file encodes colors: as colors, by a palette, as gray values, or as 1 bit."""
    if stats.encoding.kind in ("colors", "palette"):
        return stats.encoding.kind
    return "1 bit" if stats.encoding.dtype == "bool" else "gray values"


def _agree(cases: Sequence[CaseStats]) -> bool:
    """Return whether files of different forms hold the same stored values."""
    found: dict[str, set[int]] = {}
    for stats in cases:
        found.setdefault(form_of(stats), set()).update(stats.value_counts)
    values = sorted((own - {0} for own in found.values()), key=len)
    return all(own <= values[-1] for own in values)


def _have_conflict(cases: Iterable[CaseStats]) -> bool:
    """Return whether an index has different colors in two files."""
    color_of: dict[int, tuple[int, int, int]] = {}
    for stats in cases:
        for index, color in enumerate(stats.encoding.palette or ()):
            if index in stats.value_counts and color_of.setdefault(index, color) != color:
                return True
    return False


def find_equal_foreground(reading: MaskReading) -> tuple[int, ...]:
    """Return the values that all mean foreground, the most common first; () if there is none.

    Each file must have the background 0 (black) and at most one other value. These mean the same
    if all are 1 or white, or if files of different kinds have one value each.
    """
    owners: Counter[int] = Counter()
    by_form: dict[str, set[int]] = {}
    for stats, counts in zip(reading.cases, reading.counts, strict=True):
        others = set(counts) - {0}
        if len(others) > 1:
            return ()
        owners.update(others)
        by_form.setdefault(form_of(stats), set()).update(others)
    if len(owners) < 2 or not any(0 in counts for counts in reading.counts):
        return ()
    are_white = {form: all(_is_white(v, reading) for v in own) for form, own in by_form.items()}
    is_one = {form: len(own) <= 1 or are_white[form] for form, own in by_form.items()}
    is_sure = all(are_white.values()) or (len(by_form) > 1 and all(is_one.values()))
    return tuple(sorted(owners, key=lambda v: (-owners[v], -v))) if is_sure else ()


def _is_white(value: int, reading: MaskReading) -> bool:
    """Return whether a value is the foreground of masks with two values, in any notation."""
    if not reading.are_colors:
        return value == 1 or NEARLY_WHITE <= value <= 255 or value == 65_535
    return value == 0x010101 or (value % 0x010101 == 0 and value >= NEARLY_WHITE * 0x010101)


def _sum(counts: Iterable[Mapping[int, int]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for own in counts:
        total.update(own)
    return total
