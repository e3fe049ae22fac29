"""Images and masks next to each other, in one folder or in the folders of one tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from ushape.data.layouts.base import LayoutMatch, index_masks, pair_files
from ushape.data.layouts.candidates import Candidate, choose_masks, holds_few_values
from ushape.data.layouts.differences import Difference, common_start, rank_differences
from ushape.data.layouts.listing import images_below
from ushape.data.layouts.matching import MIN_SUPPORT
from ushape.data.layouts.names import (
    has_image_word,
    has_mask_word,
    names_of_masks,
    stem_key,
    strip_mask_word,
)
from ushape.errors import DataError
from ushape.formatting import quoted
from ushape.io.names import comparable

NEARLY_ALL = 0.8
"""Share of all files in two folders from which these are a folder of images and one of masks."""


def find_one_tree(folder: Path) -> LayoutMatch | None:
    """Find masks that lie next to their images and whose names differ from theirs in one way.

    Examples: `x` and `x_mask`, `Mask of x` or `x_P`; `s1/image` and `s1/mask`; `x.jpg` and `x.png`.
    Which of the files are the masks follows from usual words in their names, otherwise from the
    number of values that they contain.

    Raises:
        DataError: if several kinds of file could be the masks or the images.
    """
    paths = images_below(folder)
    names = [stem_key(path, folder) for path in paths]
    if len(set(names)) < len(names):
        names = [path.relative_to(folder).as_posix() for path in paths]
    files = dict(zip(names, paths, strict=True))
    ranked = rank_differences(*[{comparable(name): name for name in files}] * 2)
    if any(_are_two_folders(*one, files) for one in ranked):
        return None
    kinds = _find_kinds(files, ranked)
    images = _choose_images(folder, kinds)
    if images is None:
        masks = [files[name] for name in names_of_masks(files)]
        return _pair(folder, paths, masks) if masks and len(masks) < len(paths) else None
    candidates = [_candidate(folder, images, kind, kinds) for kind in kinds if kind != images]
    fitting = [one for one in candidates if one.paths]
    chosen, notes = choose_masks(folder, quoted(folder), fitting)
    if chosen is None:
        return None
    known = {path for kind in kinds for path in kind.files.values()}
    words = [path for name, path in files.items() if strip_mask_word(name) and path not in known]
    others = known - set(images.files.values()) - set(chosen.paths.values())
    kept = [path for path in paths if path not in others]
    found = _pair(folder, kept, [*chosen.paths.values(), *words])
    return replace(found, notes=(*found.notes, *notes))


def _pair(folder: Path, paths: Sequence[Path], masks: Sequence[Path]) -> LayoutMatch:
    used = set(masks)
    return pair_files(
        "one folder tree",
        [(stem_key(path, folder), path) for path in paths if path not in used],
        [(stem_key(path, folder), path) for path in masks],
    )


@dataclass(frozen=True)
class _Kind:
    """Files whose names have parts that those of the other kinds lack."""

    start: str
    end: str
    is_addition: bool
    """Whether the names are those of the images with these parts added."""

    files: Mapping[str, Path]
    """Files by the comparable form of their names."""

    @property
    def is_mask_named(self) -> bool:
        return has_mask_word(f"{self.start} {self.end}")

    @property
    def is_image_named(self) -> bool:
        return has_image_word(f"{self.start} {self.end}")


def _pattern(folder: Path, kind: _Kind, kinds: Sequence[_Kind]) -> str:
    """Return a pattern for the files of a kind, which files of other kinds do not match."""
    names = [path.relative_to(folder).as_posix() for path in kind.files.values()]
    others = [
        path.relative_to(folder).as_posix()
        for other in kinds
        if other is not kind
        for path in other.files.values()
    ]
    bare = [name.rpartition("/")[2] for name in names]
    start, end = common_start(bare), common_start([name[::-1] for name in bare])[::-1]
    tried = [f"*{end}", f"{start}*", f"{start}*{end}"]
    if len(set(bare)) == 1:
        tried.insert(0, bare[0])
    before = "**/" if len(bare[0]) < len(names[0]) else ""
    for pattern in tried:
        if not any(fnmatch(other.rpartition("/")[2], pattern) for other in others):
            return before + pattern
    return f"**/*{kind.start}*/**/*"


def _are_two_folders(
    difference: Difference, pairs: Mapping[str, str], files: Mapping[str, Path]
) -> bool:
    """Return whether a folder of images lies next to a folder with a mask of nearly every image.

    Names that differ within one of these folders do not distinguish images from masks.
    """
    if 2 * len(pairs) < NEARLY_ALL * len(files) or len(pairs) < MIN_SUPPORT:
        return False
    places = _places(pairs)
    if places is None or places[0] == places[1]:
        return False
    masks, images = ([files[name] for name in sorted(names)] for names in (pairs, pairs.values()))
    return holds_few_values(masks) != holds_few_values(images)


def _places(pairs: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the folder of all masks and that of all images; None if there are several."""
    masks, images = ({name.partition("/")[0] for name in own} for own in (pairs, pairs.values()))
    if len(masks) > 1 or len(images) > 1 or not all("/" in name for name in pairs):
        return None
    return masks.pop(), images.pop()


def _find_kinds(
    files: Mapping[str, Path], ranked: Sequence[tuple[Difference, Mapping[str, str]]]
) -> list[_Kind]:
    """Return the kinds of file of which each image has one, according to their names.

    Args:
        files: File of each name.
        ranked: Differences between names and the pairs that each explains, the best first.
    """
    kinds: list[_Kind] = []
    for difference, pairs in ranked:
        if not _is_supported(difference, pairs):
            continue
        if kinds and len(pairs) < max(MIN_SUPPORT, len(kinds[0].files) / 2):
            continue
        both = [
            _kind(difference.image, False, pairs.values(), files),
            _kind(difference.mask, not any(difference.image), pairs.keys(), files),
        ]
        new = [kind for kind in both if not any(_overlap(kind, other) for other in kinds)]
        if not kinds or len(new) == 1:
            kinds += new
    return kinds


def _kind(
    parts: tuple[str, str], is_addition: bool, names: Iterable[str], files: Mapping[str, Path]
) -> _Kind:
    return _Kind(*parts, is_addition, {comparable(name): files[name] for name in names})


def _overlap(one: _Kind, other: _Kind) -> bool:
    return not one.files.keys().isdisjoint(other.files)


def _is_supported(difference: Difference, pairs: Mapping[str, str]) -> bool:
    """Whether enough pairs differ in this way; with a usual word for masks, one is enough."""
    both = (difference.image, difference.mask)
    places = _places(pairs)
    if (places and places[0] != places[1]) or not pairs.keys().isdisjoint(pairs.values()):
        return False  # Two folders next to each other are another layout.
    words = [has_mask_word(" ".join(parts)) for parts in both]
    return len(pairs) >= MIN_SUPPORT or words == [False, True]


def _choose_images(folder: Path, kinds: Sequence[_Kind]) -> _Kind | None:
    """Return the kind of file that the images are; None if there are no masks.

    Raises:
        DataError: if several kinds contain images.
    """
    if len(kinds) < 2:
        return None
    others = [kind for kind in kinds if not kind.is_mask_named]
    whole = kinds[:1] if all(kind.is_addition for kind in kinds[1:]) else []
    for certain in (
        others,
        [kind for kind in whole if kind in others],
        [kind for kind in others if kind.is_image_named],
    ):
        if len(certain) == 1 and (len(others) < len(kinds) or certain[0].is_image_named):
            return certain[0]
    pictures = [kind for kind in kinds if not holds_few_values(sorted(kind.files.values()))]
    if len(pictures) == len(kinds) == len(others):
        return None
    for certain in (pictures, [kind for kind in pictures if kind in whole]):
        if len(certain) == 1:
            return certain[0]
    if not pictures and not whole:
        return None
    names = [_pattern(folder, kind, kinds) for kind in pictures or kinds]
    raise DataError(
        f"{folder}: the images could be {', '.join(names[:-1])} or {names[-1]}.",
        code="ambiguous_folders",
        hint="Move the images and the masks into separate folders, or list the pairs in a table "
        "with the columns image and mask.",
    )


def _candidate(folder: Path, images: _Kind, kind: _Kind, kinds: Sequence[_Kind]) -> Candidate:
    keyed = [(stem_key(path, folder), path) for path in kind.files.values()]
    own = {stem_key(path, folder): path for path in images.files.values()}
    pattern = _pattern(folder, kind, kinds)
    return Candidate(
        pattern,
        quoted(folder / pattern),
        {key: path for key, path in index_masks(keyed, own).items() if key in own},
        kind.is_mask_named,
    )
