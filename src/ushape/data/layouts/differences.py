"""Constant differences between the names of images and those of their masks."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from heapq import nlargest
from itertools import takewhile

from ushape.data.layouts.names import words_of

NAMES_SAMPLED = 16
"""Number of masks whose names are compared with those of the images to find the difference."""

DIFFERENCES_TRIED = 24
"""Number of differences that are tried on all names, the most frequent of the sample."""

_MARK = "\0"
"""Character that stands for the differing part in the middle of a name."""


@dataclass(frozen=True)
class Difference:
    """Parts that distinguish the names of images from those of their masks.

    `x_raw` and `Mask of x` differ in the parts `("", "_raw")` and `("Mask of ", "")` around the
    core `x`. If `is_inside`, the differing part lies between two varying ones, as in `p1/image/x`
    and `p1/mask/x`; it is then the first of the two parts.
    """

    image: tuple[str, str]
    mask: tuple[str, str]
    is_inside: bool = False

    @property
    def cost(self) -> tuple[bool, bool, int]:
        """Sort key: parts added to the whole name of the image come first, then words."""
        parts = "".join((*self.image, *self.mask))
        return any(self.image), not re.search(r"[^\W\d_]", parts), len(parts)

    @property
    def order(self) -> tuple[tuple[bool, bool, int], tuple[str, str], tuple[str, str], bool]:
        """Sort key in which no two differences are equal: the cost, then the parts."""
        return self.cost, self.image, self.mask, self.is_inside

    def cores(self, name: str, parts: tuple[str, str]) -> Iterator[str]:
        """Yield what remains of a name without the parts; nothing if it does not contain them.

        A part never takes digits from a number: `x11` is not `x1` with the part `1`.
        """
        if not self.is_inside:
            start, end = parts
            core = name[len(start) : len(name) - len(end)]
            divides = _divides_number(start, core) or _divides_number(core, end)
            if name == start + core + end and re.search(r"[^\W_]", core) and not divides:
                yield core
            return
        part = parts[0]
        at = name.find(part, 1)
        while 0 < at < len(name) - len(part):
            left, right = name[:at], name[at + len(part) :]
            around = (left, part, right) if part else (left, right)
            if not any(map(_divides_number, around, around[1:])):
                yield left + _MARK + right
            at = name.find(part, at + 1)


def _divides_number(left: str, right: str) -> bool:
    return left[-1:].isdigit() and right[:1].isdigit()


def comparable(name: str) -> str:
    """Return a name in the form in which names are compared: composed, without upper case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def rank_differences(
    images: Mapping[str, str], masks: Mapping[str, str]
) -> list[tuple[Difference, dict[str, str]]]:
    """Return the differences between names, and the pairs that each explains, the best first.

    Args:
        images: Name of each image by its comparable form.
        masks: Name of each mask by its comparable form; may be the images themselves.
    """
    seen: Counter[Difference] = Counter()
    step = max(1, len(masks) // NAMES_SAMPLED)
    likely = _Likely(list(images))
    for mask in sorted(masks)[::step]:
        seen.update({one for image in likely.of(mask) for one in _differences(image, mask)})
    ranked = []
    # Not most_common: the order of equal counts would depend on the hash seed of the process.
    frequent = sorted(seen, key=lambda one: (-seen[one], one.order))
    for difference in frequent[:DIFFERENCES_TRIED]:
        pairs = _pairs_by(difference, images, masks)
        if pairs:
            ranked.append((difference, pairs))
    return sorted(ranked, key=lambda one: (-len(one[1]), one[0].order))


def _pairs_by(
    difference: Difference, images: Mapping[str, str], masks: Mapping[str, str]
) -> dict[str, str]:
    """Return the image of each mask that differs from exactly one image in this way."""
    fitting: dict[str, set[str]] = defaultdict(set)
    for image in images:
        for core in difference.cores(image, difference.image):
            fitting[core].add(image)
    own = {
        mask: {
            image
            for core in difference.cores(mask, difference.mask)
            for image in fitting.get(core, ())
            if image != mask
        }
        for mask in masks
    }
    counts = Counter(image for several in own.values() for image in several)
    return {
        masks[mask]: images[image]
        for mask, several in own.items()
        for image in several
        if len(several) == 1 and counts[image] == 1
    }


def _differences(image: str, mask: str) -> Iterator[Difference]:
    """Yield the ways in which two names may differ, from the parts that they have in common."""
    found = SequenceMatcher(None, image, mask, autojunk=False).find_longest_match()
    if found.size:
        yield Difference(
            (image[: found.a], image[found.a + found.size :]),
            (mask[: found.b], mask[found.b + found.size :]),
        )
    length = min(len(image), len(mask))
    ahead, behind = (len(common_start(both)) for both in ((image, mask), (image[::-1], mask[::-1])))
    for left, right in {
        (ahead, min(behind, length - ahead)),
        (min(ahead, length - behind), behind),
    }:
        one, other = image[left : len(image) - right], mask[left : len(mask) - right]
        yield Difference((image[: len(image) - right], ""), (mask[: len(mask) - right], ""))
        yield Difference(("", image[left:]), ("", mask[left:]))
        if left and right and (one or other):
            yield Difference((one, ""), (other, ""), is_inside=True)


class _Likely:
    """Index of names, to find those that are most similar to another name."""

    def __init__(self, names: Sequence[str]):
        self.sorted = sorted(names)
        self.reversed = sorted(name[::-1] for name in names)
        self.by_word: dict[str, list[str]] = defaultdict(list)
        for name in names:
            for word in words_of(name):
                self.by_word[word].append(name)

    def of(self, name: str, most: int = 4) -> set[str]:
        """Return names that share the rarest words with a name, or its start and end."""
        shared: dict[str, float] = defaultdict(float)
        for word in words_of(name):
            owners = self.by_word.get(word, ())
            for owner in owners:
                shared[owner] += 1 / len(owners)
        alike = {
            *_around(name, self.sorted),
            *(n[::-1] for n in _around(name[::-1], self.reversed)),
        }
        rare = nlargest(most + 1, shared, key=lambda other: (shared[other], other))
        return {*rare, *alike} - {name}


def _around(name: str, ordered: Sequence[str]) -> Sequence[str]:
    """Return the neighbors of a name in sorted names: those with the longest common start."""
    at = bisect_left(ordered, name)
    return ordered[max(at - 2, 0) : at + 3]


def common_start(names: Sequence[str]) -> str:
    """Return the longest common start of names."""
    first, last = min(names), max(names)
    same = takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False))
    return first[: sum(1 for _ in same)]
