"""Matching of masks to images by names that may differ in a constant part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ushape.data.layouts.differences import Difference, rank_differences
from ushape.data.layouts.names import has_image_word, strip_image_word, strip_mask_word
from ushape.errors import DataError
from ushape.io.names import comparable

MIN_SUPPORT = 3
"""Number of masks that must have the same difference from their image before it is inferred."""


@dataclass
class Matching:
    """Image of each mask, by their names, and how names differ."""

    image_of: dict[str, str]
    differences: list[Difference]

    @property
    def example(self) -> str:
        """An image and a mask with different names, in words; empty if all names are equal."""
        for mask, image in sorted(self.image_of.items()):
            if comparable(mask) != comparable(image):
                return f"the mask of {image} is {mask}"
        return ""


def match_names(images: Mapping[str, str], masks: Sequence[str]) -> Matching:
    """Match masks to images by their names, each mask to at most one image.

    Names are compared without regard to upper case and to the Unicode form of accents. In this
    order, a mask belongs to the image with the same name; with the same file name, as `a.jpg.png`
    to `a.jpg`; whose name differs from that of the mask as in nearly all other pairs; whose name
    it has with a usual word such as `_mask`; or whose file name is the same in another folder.
    Names that fit several images are not matched.

    Args:
        images: File name with suffix of each image, by name; names may contain folders, with '/'.
        masks: Names of the masks, without suffix.

    Raises:
        DataError: if several masks belong to one image, or several images to one mask.
    """
    found = Matching({}, [])
    image_of = found.image_of
    _join_equal(images, masks, image_of, str, str)
    _join_equal(images, masks, image_of, comparable, comparable)
    _join_equal(images, masks, image_of, lambda name: comparable(images[name]), comparable)
    while difference := _infer(images, masks, found):
        found.differences.append(difference)
    _join_words(images, masks, image_of)
    _join_equal(images, masks, image_of, _base, _base)
    _refuse_second_masks(masks, found)
    return found


def _base(name: str) -> str:
    return comparable(name.rpartition("/")[2])


def _join_equal(
    images: Iterable[str],
    masks: Iterable[str],
    image_of: dict[str, str],
    image_form: Callable[[str], str],
    mask_form: Callable[[str], str],
) -> None:
    """Join masks and images that have a form in common with no other image or mask."""
    taken = set(image_of.values())
    same: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for image in images:
        if image not in taken:
            same[image_form(image)][0].append(image)
    for mask in masks:
        if mask not in image_of:
            same[mask_form(mask)][1].append(mask)
    for fitting, own in same.values():
        if len(fitting) == len(own) == 1:
            image_of[own[0]] = fitting[0]


def _infer(images: Mapping[str, str], masks: Sequence[str], found: Matching) -> Difference | None:
    """Find the difference that most of the unmatched names share, and match them by it."""
    taken = set(found.image_of.values())
    free = [image for image in images if image not in taken]
    open_masks = [mask for mask in masks if mask not in found.image_of]
    for names in ({name: name for name in free}, {name: images[name] for name in free}):
        ranked = rank_differences(
            {comparable(form): name for name, form in names.items()},
            {comparable(mask): mask for mask in open_masks},
        )
        if ranked and _is_convincing(*ranked[0], len(free), open_masks, len(masks)):
            _refuse_rivals(ranked)
            found.image_of |= ranked[0][1]
            return ranked[0][0]
    return None


def _is_convincing(
    difference: Difference,
    pairs: Mapping[str, str],
    image_count: int,
    open_masks: Sequence[str],
    mask_count: int,
) -> bool:
    """Whether enough names differ in this way.

    One or two masks suffice only if there are no others, and their names add a word to the image's.
    """
    if len(pairs) >= MIN_SUPPORT:
        return 2 * len(pairs) >= min(image_count, len(open_masks))
    start, end = difference.mask
    is_word = not any(difference.image) and not (
        start[-1:].isalnum() or end[:1].isalnum() or difference.is_inside
    )
    return is_word and 0 < len(pairs) == mask_count


def _refuse_rivals(ranked: Sequence[tuple[Difference, Mapping[str, str]]]) -> None:
    """Refuse masks whose names fit the names of two kinds of image equally well.

    Raises:
        DataError: if nearly all masks could belong to other images.
    """
    best, pairs = ranked[0]
    if not any(best.image) or any(map(has_image_word, best.image)):
        return
    for rival, others in ranked[1:]:
        unlike = [mask for mask in pairs.keys() & others.keys() if pairs[mask] != others[mask]]
        if any(rival.image) and 5 * len(unlike) >= 4 * len(pairs):
            mask = min(unlike)
            raise DataError(
                f"The mask {mask} could belong to {pairs[mask]} or to {others[mask]}, and nearly "
                "all other masks to two images as well.",
                code="ambiguous_image",
                hint="Move the images that the masks belong to into a separate folder, or list "
                "the pairs in a table with the columns image and mask.",
            )


def _join_words(images: Iterable[str], masks: Iterable[str], image_of: dict[str, str]) -> None:
    """Join masks with a usual word in their name, as `a_mask`, to the image `a` or `a_image`.

    Raises:
        DataError: if the image has a mask.
    """
    full = {comparable(image): image for image in images}
    short: dict[str, list[str]] = defaultdict(list)
    for name, image in full.items():
        if (stripped := strip_image_word(name)) is not None:
            short[stripped].append(image)
    mask_of = {image: mask for mask, image in image_of.items()}
    for mask in masks:
        name = comparable(mask)
        own = strip_mask_word(name) or name
        fitting = [full[own]] if own in full else short.get(own, [])
        if mask in image_of or len(fitting) != 1:
            continue
        if fitting[0] in mask_of:
            raise _several_masks(fitting[0], [mask_of[fitting[0]], mask])
        image_of[mask] = fitting[0]
        mask_of[fitting[0]] = mask


def _refuse_second_masks(masks: Sequence[str], found: Matching) -> None:
    """Refuse remaining masks that all differ in the same way from images that have a mask.

    Raises:
        DataError: if there are at least MIN_SUPPORT of them.
    """
    rest = {comparable(mask): mask for mask in masks if mask not in found.image_of}
    mask_of = {image: mask for mask, image in found.image_of.items()}
    if len(rest) < MIN_SUPPORT or not mask_of:
        return
    known = {("", ""), *(difference.image for difference in found.differences)}
    ranked = rank_differences({comparable(image): image for image in mask_of}, rest)
    seconds = [
        {image: mask for mask, image in pairs.items()}
        for difference, pairs in ranked
        if len(pairs) >= MIN_SUPPORT and difference.image in known
    ]
    if seconds:
        image = min(seconds[0])
        others = {own[image] for own in seconds if image in own}
        raise _several_masks(image, [mask_of[image], *sorted(others)])


def _several_masks(image: str, masks: Sequence[str]) -> DataError:
    return DataError(
        f"{len(masks)} masks belong to the image {image}: {', '.join(masks[:-1])} and {masks[-1]}.",
        code="ambiguous_mask",
        hint="Move the masks that are not needed into another folder, or select those to use with "
        "a pattern such as --masks 'MASKS/*_mask.png'.",
    )
