"""Choice of the masks among several files that belong to each image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ushape import io
from ushape.errors import DataError

MAX_MASK_VALUES = 32
"""Number of values in some files of a kind above which they are regarded as images."""

FILES_READ = 6
"""Number of files of each kind that are read to distinguish images from masks."""

SIDE_PX = 64
"""Number of pixels along each axis to which masks are sampled to compare them."""

SAME_OVERLAP = 0.85
"""Intersection over union with their common part from which masks are regarded as identical."""

SAME_BORDER = 0.6
"""Intersection over union of the background, which may be small, for the same purpose."""


@dataclass(frozen=True)
class Candidate:
    """Files that may be the masks: those of a folder, or with a common part in their names."""

    name: str
    """Description, for example `1st_manual/`."""

    argument: str
    """Value of the option --masks that selects these files, as entered in a shell."""

    paths: Mapping[str, Path] = field(repr=False)
    """Files by the key of the image that they belong to."""

    is_named: bool
    """Whether the name contains a usual word for masks."""

    def sample(self, keys: Iterable[str]) -> list[Path]:
        """Return up to FILES_READ files, evenly distributed over these keys."""
        return spread([self.paths[key] for key in sorted(keys)])


def choose_masks(
    folder: Path, images: str, candidates: Sequence[Candidate]
) -> tuple[Candidate | None, list[str]]:
    """Return the masks among several candidates, and notes about the others.

    Files with many values are images. Masks that are nearly identical to each other mark the field
    of view. Of masks that mark the same pixels, those with the fewest values are used, and of
    other masks those with a usual name. A single candidate with a usual name is not read.

    Args:
        folder: Data folder, for messages.
        images: Argument that selects the images in a command, for messages.

    Raises:
        DataError: if several candidates remain.
    """
    if len(candidates) == 1 and candidates[0].is_named:
        return candidates[0], []
    common = set.intersection(*(set(one.paths) for one in candidates)) if candidates else set()
    contents = [_Content(one, one.sample(common or one.paths)) for one in candidates]
    possible = [content for content in contents if content.is_mask]
    possible = possible or [content for content in contents if content.candidate.is_named]
    duplicates = [
        content
        for content in contents
        if content not in possible and any(content.marks_as(other) for other in possible)
    ]
    notes = [
        f"Not used: {content.candidate.name}, whose files contain too many values to be masks."
        for content in contents
        if content not in possible + duplicates and content.candidate.is_named
    ]
    possible, copies = _without_copies(possible)
    several = possible if len(possible) > 1 else []
    varying = [content for content in several if not content.is_constant]
    if varying:
        notes += [
            f"Not used: {content.candidate.name}, whose masks are nearly identical to each other, "
            "like masks of the field of view."
            for content in possible
            if content.is_constant
        ]
        possible = varying
    possible, unnamed = _prefer_named(possible)
    if len(possible) > 1:
        raise _ambiguous(folder, images, [content.candidate for content in possible])
    for content in duplicates + copies + unnamed:
        kind = "is another mask for each image" if content in unnamed else "marks the same pixels"
        command = f"ushape train {images} --masks {content.candidate.argument}"
        notes.append(f"Not used: {content.candidate.name}, which {kind}. To use it: {command}")
    return (possible[0].candidate if possible else None), notes


def spread(paths: Sequence[Path]) -> list[Path]:
    """Return up to FILES_READ files, evenly distributed over all of them."""
    places = np.unique(np.linspace(0, len(paths) - 1, FILES_READ).astype(int))
    return [paths[place] for place in places]


def holds_few_values(paths: Sequence[Path]) -> bool:
    """Return whether some of these files, of which FILES_READ are read, could be masks.

    Masks hold 2 to MAX_MASK_VALUES values in all.
    """
    return 2 <= len(values_of(paths)) <= MAX_MASK_VALUES


def values_of(paths: Sequence[Path]) -> set[int]:
    """Return the values of files, at least until there are too many; none if one is not a mask.

    Damaged files are skipped.
    """
    values: set[int] = set()
    for path in spread(paths):
        try:
            values.update(np.unique(io.read_mask(path).codes).tolist())
        except DataError as error:
            if error.code == "damaged_file":
                continue
            return set()  # Fractional values or several channels: not a mask.
        if len(values) > MAX_MASK_VALUES:
            break
    return values


class _Content:
    """Content of a candidate, of which few files are read."""

    def __init__(self, candidate: Candidate, paths: Sequence[Path]):
        self.candidate = candidate
        self.paths = paths

    @cached_property
    def values(self) -> set[int]:
        return values_of(self.paths)

    @property
    def is_mask(self) -> bool:
        return 2 <= len(self.values) <= MAX_MASK_VALUES

    @cached_property
    def drawn(self) -> list[np.ndarray]:
        """Foreground of each file, sampled to at most SIDE_PX pixels along each axis.

        A file that cannot be read has a shape that no other has.
        """
        return [self._drawn_in(path) for path in self.paths]

    @staticmethod
    def _drawn_in(path: Path) -> np.ndarray:
        try:
            return _sampled(io.read_mask(path).codes != 0)
        except DataError:
            return np.zeros(0, dtype=bool)

    @property
    def is_constant(self) -> bool:
        """Whether all masks have two values, and nearly the same pixels of each."""
        if len(self.values) != 2 or len(self.paths) < 3:
            return False
        if len({drawn.shape for drawn in self.drawn}) > 1:
            return False
        common = np.mean(self.drawn, axis=0) > 0.5
        return all(
            _overlap(drawn, common) >= SAME_OVERLAP and _overlap(~drawn, ~common) >= SAME_BORDER
            for drawn in self.drawn
        )

    def marks_as(self, other: _Content) -> bool:
        """Whether at least two files have the same foreground as those of another candidate."""
        if not self.values or len(self.paths) < 2:
            return False
        both = list(zip(self.drawn, other.drawn, strict=True))
        return all(one.shape == two.shape and _overlap(one, two) >= 0.95 for one, two in both)


def _sampled(drawn: np.ndarray) -> np.ndarray:
    places = [np.linspace(0, size - 1, min(size, SIDE_PX)).astype(int) for size in drawn.shape]
    if drawn.ndim == 2:  # Masks of the field of view may differ in size.
        places = [np.linspace(0, size - 1, SIDE_PX).astype(int) for size in drawn.shape]
    return drawn[np.ix_(*places)]


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1)) if (one | other).any() else 1.0


def _without_copies(contents: Sequence[_Content]) -> tuple[list[_Content], list[_Content]]:
    """Separate candidates that mark the same pixels as one with fewer values."""
    distinct: list[_Content] = []
    copies: list[_Content] = []
    for content in sorted(
        contents, key=lambda content: (len(content.values), not content.candidate.is_named)
    ):
        is_copy = any(content.marks_as(other) for other in distinct)
        (copies if is_copy else distinct).append(content)
    return distinct, copies


def _prefer_named(contents: Sequence[_Content]) -> tuple[list[_Content], list[_Content]]:
    """Separate candidates without a usual name, if exactly one has such a name."""
    named = [content for content in contents if content.candidate.is_named]
    if len(named) != 1:
        return list(contents), []
    return named, [content for content in contents if content is not named[0]]


def _ambiguous(folder: Path, images: str, candidates: Sequence[Candidate]) -> DataError:
    names = [one.name for one in candidates]
    commands = "; ".join(f"ushape train {images} --masks {one.argument}" for one in candidates)
    return DataError(
        f"{folder}: several masks belong to each image, those of {', '.join(names[:-1])} and of "
        f"{names[-1]}.",
        code="ambiguous_folders",
        hint=f"Select the masks to use with one of these commands: {commands}. A mask of the "
        "field of view is not a segmentation.",
    )
