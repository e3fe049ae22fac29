"""Constant differences between the names of images and those of their masks."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from heapq import nlargest
from itertools import islice, takewhile

from ushape.data.layouts.name_index import END, NameIndex
from ushape.data.layouts.names import words_of

NAMES_SAMPLED = 16
"""Number of masks whose names are compared with those of the images to find the difference."""

FREQUENT = 1000
"""Number of names from which a word is frequent; those that share no rarer one are not compared."""

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

    def bound(self, names: NameIndex, are_masks: bool) -> int:
        """Return at least the number of names that contain the parts of a mask or image."""
        return min((names.count(part) for part in self._texts(are_masks)), default=len(names.names))

    def fitting(self, names: NameIndex, are_masks: bool) -> Iterator[str]:
        """Yield the names that contain the parts of a mask or image, and maybe others."""
        texts = self._texts(are_masks)
        return names.containing(min(texts, key=names.count) if texts else "")

    def partners(self, name: str, is_mask: bool) -> Iterator[str]:
        """Yield the names of the images of a mask, or of the masks of an image."""
        own, others = (self.mask, self.image) if is_mask else (self.image, self.mask)
        for core in self.cores(name, own):
            if self.is_inside:
                left, _, right = core.partition(_MARK)
                other = left + others[0] + right
            else:
                other = others[0] + core + others[1]
            if core in self.cores(other, others):
                yield other

    def _texts(self, are_masks: bool) -> list[str]:
        """Return texts that all names of masks or images contain; see `NameIndex`."""
        start, end = self.mask if are_masks else self.image
        if self.is_inside:
            return [start] if start else []
        return [END + start] * bool(start) + [end + END] * bool(end)


def _divides_number(left: str, right: str) -> bool:
    return left[-1:].isdigit() and right[:1].isdigit()


def rank_differences(
    images: Mapping[str, str], masks: Mapping[str, str]
) -> list[tuple[Difference, dict[str, str]]]:
    """Return the differences between names, and the pairs that each explains, the best first.

    Args:
        images: Name of each image by its comparable form.
        masks: Name of each mask by its comparable form; may be the images themselves.
    """
    image_index = NameIndex(list(images))
    mask_index = image_index if masks is images else NameIndex(list(masks))
    seen: Counter[Difference] = Counter()
    step = max(1, len(masks) // NAMES_SAMPLED)
    likely = _Likely(image_index)
    for mask in mask_index.sorted[::step]:
        seen.update({one for image in likely.of(mask) for one in _differences(image, mask)})
    ranked = []
    # Not most_common: the order of equal counts would depend on the hash seed of the process.
    frequent = sorted(seen, key=lambda one: (-seen[one], one.order))
    for difference in frequent[:DIFFERENCES_TRIED]:
        pairs = _pairs_by(difference, image_index, mask_index)
        if pairs:
            own = {masks[mask]: images[image] for mask, image in pairs.items()}
            ranked.append((difference, own))
    return sorted(ranked, key=lambda one: (-len(one[1]), one[0].order))


def _pairs_by(difference: Difference, images: NameIndex, masks: NameIndex) -> dict[str, str]:
    """Return the image of each mask that differs from exactly one image in this way."""
    by_image, by_mask = difference.bound(images, False), difference.bound(masks, True)
    if not by_image or not by_mask:
        return {}
    own: dict[str, set[str]] = defaultdict(set)
    if by_mask <= by_image:
        for mask in difference.fitting(masks, True):
            for image in difference.partners(mask, True):
                if image != mask and image in images.positions:
                    own[mask].add(image)
    else:
        for image in difference.fitting(images, False):
            for mask in difference.partners(image, False):
                if image != mask and mask in masks.positions:
                    own[mask].add(image)
    counts = Counter(image for several in own.values() for image in several)
    return {
        mask: image
        for mask in sorted(own, key=masks.positions.__getitem__)
        for image in own[mask]
        if len(own[mask]) == 1 and counts[image] == 1
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
    """Search for the names that are most similar to another name."""

    def __init__(self, index: NameIndex):
        self._index = index
        self._reversed = sorted(name[::-1] for name in index.names)
        self._by_word: dict[str, list[str]] | None = None
        self._owners_of = cache(self._find_owners)

    def of(self, name: str, most: int = 4) -> set[str]:
        """Return names that share the rarest words with a name, or its start and end."""
        alike = {
            *_around(name, self._index.sorted),
            *(n[::-1] for n in _around(name[::-1], self._reversed)),
        }
        return {*self._sharing(name, most + 1), *alike} - {name}

    def _sharing(self, name: str, most: int) -> list[str]:
        """Return the names that share the rarest words with a name; of equal ones, the last."""
        owners = {word: self._owners_of(word) for word in words_of(name)}
        frequent = {word for word, names in owners.items() if len(names) > FREQUENT}
        known = {owner for word, names in owners.items() if word not in frequent for owner in names}
        if frequent:
            last = self._last_with(frequent, known, most)
            if last is None:
                known = {owner for names in owners.values() for owner in names}
            else:
                known.update(last)
        shared = dict.fromkeys(known, 0.0)
        for word, names in owners.items():
            holders = names if word not in frequent else _having(word, known)
            for holder in holders:
                if holder in shared:
                    shared[holder] += 1 / len(names)
        return nlargest(most, shared, key=lambda other: (shared[other], other))

    def _last_with(self, words: set[str], known: Collection[str], most: int) -> list[str] | None:
        """Return the last names that contain all of the words, apart from those that are known.

        No other name that is not known shares as much. None: there are few names of this kind.
        """
        found: list[str] = []
        for name in islice(reversed(self._index.sorted), FREQUENT):
            if name not in known and words <= words_of(name):
                found.append(name)
                if len(found) == most:
                    return found
        return None

    def _find_owners(self, word: str) -> list[str]:
        """Return the names that contain a word."""
        if self._index.is_lower:
            return self._index.with_word(word)
        if self._by_word is None:
            self._by_word = defaultdict(list)
            for name in self._index.names:
                for own in words_of(name):
                    self._by_word[own].append(name)
        return self._by_word.get(word, [])


def _having(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if word in words_of(name)]


def _around(name: str, ordered: Sequence[str]) -> Sequence[str]:
    """Return the neighbors of a name in sorted names: those with the longest common start."""
    at = bisect_left(ordered, name)
    return ordered[max(at - 2, 0) : at + 3]


def common_start(names: Sequence[str]) -> str:
    """Return the longest common start of names."""
    first, last = min(names), max(names)
    same = takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False))
    return first[: sum(1 for _ in same)]
