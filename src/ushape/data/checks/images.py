"""Checks of files and images: readable, of one kind, of their mask's size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from ushape.data.case_stats import CaseStats
from ushape.data.checks.finding import Finding
from ushape.data.scan import DatasetStats
from ushape.formatting import pluralize, size_text
from ushape.io.files import DAMAGED

TURNED_SIDEWAYS = range(5, 9)
"""EXIF orientations that exchange height and width."""


def find_unpaired(dataset: DatasetStats) -> Iterator[Finding]:
    for note in dataset.listing.notes:
        yield Finding(
            check="unpaired",
            severity="warning",
            text=note.removeprefix("Left out: "),
            fix="Give both files of a pair the same name, or take the lonely one out.",
        )


def find_unreadable(dataset: DatasetStats) -> Iterator[Finding]:
    broken = [stats for stats in dataset.case_stats if stats.error is not None]
    empty = [stats for stats in broken if stats.is_zero_bytes]
    damaged = [stats for stats in broken if not stats.is_zero_bytes]
    if empty:
        yield Finding(
            check="zero_bytes",
            severity="error",
            text=f"{pluralize(len(empty), 'pair')} with a file of 0 bytes.",
            fix="Copy these files again from their source.",
            cases=tuple(stats.case.id for stats in empty),
            in_copy="left out",
        )
    if damaged:
        yield Finding(
            check="unreadable",
            severity="error",
            text=f"{pluralize(len(damaged), 'pair')} with a file that cannot be read, e.g. "
            f"{damaged[0].error}",
            fix=damaged[0].hint or DAMAGED,
            cases=tuple(stats.case.id for stats in damaged),
            in_copy="left out",
        )


def find_other_sizes(dataset: DatasetStats) -> Iterator[Finding]:
    """Image and mask of different size: turned by EXIF, transposed, or simply another size."""
    unlike = [stats for stats in dataset.readable if stats.shape != stats.mask_shape]
    # A square image, or one that is upside down, keeps its size when its EXIF turns it.
    turned = [stats for stats in dataset.readable if stats.is_turned_apart]
    transposed = [e for e in unlike if e not in turned and e.shape == e.mask_shape[::-1]]
    other = [stats for stats in unlike if stats not in turned and stats not in transposed]
    if turned:
        yield Finding(
            check="exif",
            severity="error",
            text=f"{pluralize(len(turned), 'image')} turned by EXIF, and the mask does not turn "
            "with it.",
            fix="Turn the mask as the photograph is shown (--fix does), or remove the EXIF "
            "orientation where the mask was drawn on the pixels as stored.",
            cases=tuple(stats.case.id for stats in turned),
            in_copy="corrected",
        )
    if transposed:
        yield Finding(
            check="transposed",
            severity="error",
            text=f"{pluralize(len(transposed), 'image')} whose mask is transposed, "
            f"{_sizes_of(transposed[0])}.",
            fix="Exchange height and width of the mask; look whether it is mirrored as well.",
            cases=tuple(stats.case.id for stats in transposed),
            in_copy="corrected",
        )
    if other:
        yield Finding(
            check="size",
            severity="error",
            text=f"{pluralize(len(other), 'image')} whose mask has another size, "
            f"{_sizes_of(other[0])}.",
            fix="Export the masks on the image's grid, pixel for pixel.",
            cases=tuple(stats.case.id for stats in other),
            in_copy="left out",
        )


def find_mixed_kinds(dataset: DatasetStats) -> Iterator[Finding]:
    """Different channel counts stop training, different depths are brought to one scale."""
    for check, key, severity, fix in (
        (
            "channels",
            lambda stats: f"{stats.channels} channels",
            "error",
            "Convert all images to one kind, e.g. all gray or all RGB.",
        ),
        (
            "dimensions",
            lambda stats: f"{len(stats.shape)}D",
            "error",
            "Train on images or on volumes, not on both.",
        ),
        (
            "depth",
            lambda stats: stats.dtype,
            "warning",
            "Each image is scaled by itself, so that this may be meant; convert them if not.",
        ),
    ):
        rare, text = _minorities(dataset.readable, key)
        if rare:
            yield Finding(
                check=check,
                severity=severity,  # type: ignore[arg-type]  # A literal of the table above.
                text=f"Images of different kinds: {text}.",
                fix=fix,
                cases=tuple(stats.case.id for stats in rare),
            )


def find_odd_images(dataset: DatasetStats) -> Iterator[Finding]:
    def those(is_odd: Callable[[CaseStats], bool]) -> tuple[str, ...]:
        return tuple(stats.case.id for stats in dataset.readable if is_odd(stats))

    if cases := those(lambda stats: stats.not_finite > 0):
        count = sum(stats.not_finite for stats in dataset.readable)
        yield Finding(
            check="not_finite",
            severity="error",
            text=f"{pluralize(len(cases), 'image')} with NaN or infinite values ({count} in all).",
            fix="Replace them, e.g. by the value of the background, or take the images out.",
            cases=cases,
            in_copy="left out",
        )
    if cases := those(lambda stats: stats.low == stats.high and stats.not_finite == 0):
        yield Finding(
            check="constant",
            severity="warning",
            text=f"{pluralize(len(cases), 'image')} of one value only.",
            fix="Look whether the export failed; take them out if they show nothing.",
            cases=cases,
            in_copy="left out",
        )
    if cases := those(lambda stats: stats.has_alpha):
        yield Finding(
            check="alpha",
            severity="note",
            text=f"{pluralize(len(cases), 'image')} with a transparency channel, which is dropped.",
            fix="Nothing, unless the transparency means something.",
            cases=cases,
        )
    if cases := those(lambda stats: stats.equal_channels):
        yield Finding(
            check="equal_channels",
            severity="note",
            text=f"{pluralize(len(cases), 'image')} in which two channels hold the same.",
            fix="Nothing where a missing sequence was repeated; save gray images as gray "
            "otherwise.",
            cases=cases,
        )


def _sizes_of(stats: CaseStats) -> str:
    return f"e.g. image {size_text(stats.shape)}, mask {size_text(stats.mask_shape)}"


def _minorities(
    selected: Iterable[CaseStats], key_of: Callable[[CaseStats], str]
) -> tuple[list[CaseStats], str]:
    """Exams that are not of the commonest kind, and all kinds with their counts."""
    by_key: dict[str, list[CaseStats]] = {}
    for stats in selected:
        by_key.setdefault(key_of(stats), []).append(stats)
    if len(by_key) < 2:
        return [], ""
    counts = Counter({key: len(own) for key, own in by_key.items()}).most_common()
    rare = [stats for key, _ in counts[:0:-1] for stats in by_key[key]]
    return rare, ", ".join(f"{count} of {key}" for key, count in counts)
