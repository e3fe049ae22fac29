"""Scan of a dataset: read every file once, and infer label space and groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.cache import join_errors
from ushape.data.case_stats import CaseStats, convert_gray, duplicates_among, scan_cases, sum_values
from ushape.data.checksum import combine_checksums, file_checksums
from ushape.data.classes.names import StatedClasses
from ushape.data.discovery import DatasetListing, discover
from ushape.data.duplicates import Duplicates
from ushape.data.grouping import (
    Grouping,
    merge_groups_sharing_duplicates,
)
from ushape.data.grouping.parts import find_groups_of_parts
from ushape.data.mask_values import interpret_masks
from ushape.data.mask_values.notes import ValueNote
from ushape.data.other_labels import OtherLabels, find_other_labels
from ushape.data.parts import divide_large_images
from ushape.data.preprocessing_config import DIVIDE_ABOVE_PX
from ushape.data.reading import mask_size_error
from ushape.data.regions import choose_regions
from ushape.data.sections import split_into_sections
from ushape.data.time_points import split_into_time_points
from ushape.errors import DataError
from ushape.formatting import pluralize, size_text
from ushape.labels import LabelConfig, LabelSpace
from ushape.labels.colors import color_text
from ushape.types import CaseFacts, MaskEncoding, files_of


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """Results of the scan of a dataset."""

    folder: Path
    """Data folder, table or COCO file that the user specified."""

    listing: DatasetListing
    case_stats: tuple[CaseStats, ...]
    """Statistics of every case, in the order of the listing, unreadable ones included."""

    labels: LabelConfig
    """Label settings of the user, completed with the classes that the data folder defines."""

    label_space: LabelSpace | None
    """Meaning of the mask values; None if they cannot be interpreted."""

    label_error: DataError | None
    """Reason why the mask values cannot be interpreted."""

    label_rule: str
    """How the label space was determined, in words."""

    grouping: Grouping
    """Groups of the readable cases; groups that share duplicates are merged."""

    inferred_groups: Mapping[str, str]
    """Group of each readable case before groups were merged, by case id."""

    duplicates: tuple[Duplicates, ...]
    """Pairs of cases with identical or nearly identical images."""

    encoding: MaskEncoding = field(default_factory=MaskEncoding)
    """Encoding in which predictions are written: that of most masks."""

    value_notes: tuple[ValueNote, ...] = ()
    """Decisions on the mask values that the user should know."""

    other_labels: tuple[OtherLabels, ...] = ()
    """Additional labels in the folder, which are not used."""

    part_of: Mapping[str, str] = field(default_factory=dict)
    """Subset of each case id; empty before the data are split."""

    @property
    def space(self) -> LabelSpace:
        """The label space of a usable dataset."""
        assert self.label_space is not None, "call raise_if_unusable() first"
        return self.label_space

    @cached_property
    def readable(self) -> list[CaseStats]:
        """Statistics of the cases whose image and mask could be read."""
        return [stats for stats in self.case_stats if stats.error is None]

    @cached_property
    def fitting(self) -> list[CaseStats]:
        """Statistics of the readable cases whose mask fits the image and is not a copy of it."""
        return [
            stats
            for stats in self.readable
            if stats.shape == stats.mask_shape and not stats.mask_is_image
        ]

    @cached_property
    def value_counts(self) -> Counter[int]:
        """Number of pixels of each mask value over all readable cases."""
        return sum_values(self.readable)

    @property
    def facts(self) -> list[CaseFacts]:
        """The cases with their groups and class sizes."""
        by_id = {stats.case.id: self.class_pixels(stats) for stats in self.readable}
        return [CaseFacts(case, by_id[case.id]) for case in self.grouping.cases]

    @property
    def group_of(self) -> dict[str, str]:
        """Group of each readable case by its id, after groups were merged."""
        return {case.id: case.group for case in self.grouping.cases}

    @property
    def checksum(self) -> str:
        """Checksum of all files of the dataset, as `checksum.dataset_checksum` computes it."""
        return combine_checksums(self.listing.cases, self.folder, self.file_checksums)

    @cached_property
    def file_checksums(self) -> dict[Path, bytes]:
        """Checksum of each file of the dataset."""
        known = {path: own for stats in self.case_stats for path, own in stats.checksums.items()}
        return file_checksums(self.listing.cases, known)

    def class_pixels(self, stats: CaseStats) -> tuple[int, ...]:
        """Return the number of pixels of each class in a case; values of no class are skipped."""
        return self._class_pixels[stats.case.id]

    @cached_property
    def _class_pixels(self) -> dict[str, tuple[int, ...]]:
        found = {}
        for stats in self.readable:
            counts = dict(stats.value_counts)
            for value in self.space.unknown_values(counts, stats.encoding):
                del counts[value]
            found[stats.case.id] = self.space.class_pixels(counts, stats.encoding)
        return found

    def foreground_classes(self, stats: CaseStats) -> frozenset[int]:
        """Return the foreground classes that have a pixel in a case."""
        pixels = self.class_pixels(stats)
        return frozenset(index for index, count in enumerate(pixels) if index and count)

    def foreground_share(self, stats: CaseStats) -> float:
        """Return the share of a case's pixels that belong to any foreground class, 0 to 1."""
        pixels = self.class_pixels(stats)
        return sum(pixels[1:]) / max(1, sum(pixels))

    def raise_unreadable(self) -> None:
        """Raise one error for all cases whose files cannot be used.

        Raises:
            DataError: if a file cannot be read, or if a mask and its image differ in size.
        """
        failures = [error for stats in self.case_stats if (error := _error_of(stats))]
        if failures:
            raise join_errors(failures)

    def raise_if_unusable(self) -> None:
        """Raise an error if a network cannot be trained on the dataset.

        Raises:
            DataError: if a case cannot be used, if the images differ in their number of channels or
                dimensions, or if a mask value has no meaning.
        """
        self.raise_unreadable()
        _refuse_mixed_images(self.case_stats)
        if self.label_error is not None:
            raise self.label_error
        for stats in self.case_stats:
            try:
                self.space.class_pixels(stats.value_counts, stats.encoding)
            except DataError as error:
                raise DataError(
                    f"{stats.case.mask}: {error.message}", code=error.code, hint=error.hint
                ) from None


def scan_dataset(
    folder: Path,
    masks: Path | None,
    labels: LabelConfig,
    groups: str | None = None,
    *,
    workers: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    dims: int | None = None,
    classes: Sequence[str] = (),
    divide_above_px: int | None = DIVIDE_ABOVE_PX,
    slide_mpp: float | None = None,
) -> DatasetStats:
    """List a dataset, read every file once, and infer label space and groups.

    Cases that cannot be read are collected, not raised: see `DatasetStats.raise_if_unusable`.

    Args:
        folder: Data folder, table or COCO file.
        masks: Folder of the masks, if `folder` holds only the images.
        labels: Label settings of the user; they take precedence over those of the dataset.
        groups: Groups that the user specifies; see `grouping.stated.stated_keys`.
        on_progress: Called with the number of cases read and the total.
        dims: Number of spatial dimensions of the network, if it is known. Unless it is 3, each
            section of a single volume is a case.
        classes: Names of the classes of a run, background first, if the data must have the same
            classes.
        divide_above_px: Number of pixels above which images are divided; see `data.parts`.
        slide_mpp: Micrometers per pixel at which slides are read; None: their finest level.

    Raises:
        DataError: if no pair of image and mask is found, or if `groups` does not fit the cases.
        ConfigError: if `groups` is neither a column nor a regular expression.
    """
    whole = discover(folder, masks)
    whole = choose_regions(whole, classes or labels.names or (), may_lack=bool(classes))
    whole = split_into_time_points(whole, labels.time_points)
    listing = divide_large_images(whole, divide_above_px, slide_mpp)
    if dims != 3 and listing is whole:
        listing = whole = split_into_sections(listing)
    io.check_packages(path for case in listing.cases for path in files_of(case))
    measured: list[CaseStats] = []
    for stats in scan_cases(listing.cases, workers, labels.ignore):
        measured.append(stats)
        on_progress(len(measured), len(listing.cases))
    readable = [stats for stats in measured if stats.error is None]
    duplicates = duplicates_among(readable)
    grouping = _group(readable, groups)
    found = DatasetStats(
        folder=folder,
        listing=listing,
        case_stats=convert_gray(measured),
        labels=labels,
        label_space=None,
        label_error=None,
        label_rule="",
        grouping=merge_groups_sharing_duplicates(grouping, duplicates),
        inferred_groups={case.id: case.group for case in grouping.cases},
        duplicates=duplicates,
        other_labels=(
            find_other_labels(folder, whole.cases, listing.notes) if masks is None else ()
        ),
    )
    return with_labels(found, labels, stated=listing.classes) if readable else found


def with_groups(stats: DatasetStats, groups: str) -> DatasetStats:
    """Return a copy with the groups that an option specifies; see `grouping.stated.stated_keys`.

    Raises:
        DataError: if the option does not give every case a group.
        ConfigError: if the option is neither a column nor a regular expression.
    """
    grouping = _group(stats.readable, groups)
    return replace(
        stats,
        grouping=merge_groups_sharing_duplicates(grouping, stats.duplicates),
        inferred_groups={case.id: case.group for case in grouping.cases},
    )


def _group(readable: Sequence[CaseStats], groups: str | None) -> Grouping:
    thumbnails = {stats.case.id: stats.thumbnail for stats in readable}
    return find_groups_of_parts([stats.case for stats in readable], thumbnails, groups)


def with_labels(
    stats: DatasetStats, labels: LabelConfig, stated: StatedClasses | None = None
) -> DatasetStats:
    """Return a copy whose mask values are interpreted by other label settings."""
    meaning = interpret_masks(stats.readable, labels, stated)
    return replace(
        stats,
        labels=meaning.labels,
        label_space=meaning.space,
        label_error=meaning.error,
        label_rule=meaning.rule,
        encoding=meaning.encoding,
        value_notes=meaning.notes,
    )


def _error_of(stats: CaseStats) -> DataError | None:
    if stats.error is not None:
        return DataError(stats.error, code=stats.error_code, hint=stats.hint)
    if stats.shape != stats.mask_shape:
        return mask_size_error(stats.case, stats.shape, stats.mask_shape)
    return None


def _refuse_mixed_images(case_stats: Sequence[CaseStats]) -> None:
    for what, code in (("channels", "mixed_channels"), ("dimensions", "mixed_dimensions")):
        found: dict[int, CaseStats] = {}
        for stats in case_stats:
            key = stats.channels if what == "channels" else len(stats.shape)
            found.setdefault(key, stats)
        if len(found) > 1:
            listed = "; ".join(f"{key}: {one.case.image}" for key, one in sorted(found.items()))
            raise DataError(
                f"The images differ in their number of {what} ({listed}).",
                code=code,
                hint="Convert them to one format, for example all grayscale or all RGB.",
            )


def writes_as_stored(stats: DatasetStats) -> bool:
    """Return whether masks fit the stored pixels of most images with an EXIF orientation."""
    counts = Counter(one.turn for one in stats.readable)
    return counts["stored"] > counts["displayed"] + counts["unclear"]


def describe_dataset(stats: DatasetStats) -> list[str]:
    """Describe what the scan of a usable dataset found, one line per subject."""
    shapes = Counter(one.shape for one in stats.case_stats)
    common, count = shapes.most_common(1)[0]
    sizes = f"{size_text(common)} pixels"
    if len(shapes) > 1:
        sizes = f"{len(shapes)} sizes, mostly {size_text(common)} ({count})"
    kind = _describe_channels(stats.case_stats[0])
    total = len(stats.case_stats)
    lines = [
        f"{pluralize(total, 'pair')} of image and mask ({stats.listing.layout}); {sizes}, {kind}, "
        f"{', '.join(sorted({one.dtype for one in stats.case_stats}))}.",
        _describe_values(stats),
    ]
    space = stats.space
    if space.regions:
        listed = "; ".join(
            f"{region.name} = {', '.join(str(space.values[index]) for index in region.classes)}"
            for region in space.regions
        )
        lines.append(f"Regions, which are predicted independently: {listed}.")
    counts = [one.instances.visible for one in stats.readable if one.instances is not None]
    if space.has_instances and counts:
        lines.append(
            f"Objects: {pluralize(sum(counts), 'object')} as annotated, up to {max(counts)} in an "
            "image. To count connected components instead: --set labels.instances=false."
        )
    lines += [f"Note: {note.text} {note.fix}" for note in _mere_notes(stats)]
    empty = sum(stats.foreground_share(one) == 0 for one in stats.case_stats)
    if empty:
        lines.append(f"Masks without foreground: {empty} of {total} ({empty / total:.0%}).")
    lines.append(stats.grouping.description)
    lines += [f"Also found: {other.text} {other.use}" for other in stats.other_labels]
    return lines + stats.listing.notes


def _mere_notes(stats: DatasetStats) -> list[ValueNote]:
    return [note for note in stats.value_notes if note.severity == "note"]


def _describe_channels(first: CaseStats) -> str:
    """Return the number of channels and what they are."""
    count, case = first.channels, first.case
    if count == 1:
        return "1 channel (gray)"
    if case.channels:
        return f"{count} channels ({1 + len(case.channels)} files each)"
    if len(first.shape) == 3 and io.suffix_of(case.image) in io.itk.ITK_READERS:
        return f"{count} channels (values of a voxel, or the fourth axis of the files)"
    return "3 channels (RGB)" if count == 3 and len(first.shape) == 2 else f"{count} channels"


def _describe_values(stats: DatasetStats) -> str:
    space, shares = stats.space, class_shares(stats)
    listed = [f"{shown} = {name} ({share_text(share)})" for shown, name, share in shares]
    numbers = sorted(filter(space.is_object_id, stats.value_counts))
    if space.numbers_objects and numbers:
        # The values of the two classes are those of predictions; masks number their objects.
        span = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
        listed[1] = f"{span} = {shares[1][1]}, as numbers of objects ({share_text(shares[1][2])})"
    if space.ignore is not None and (ignored := 1 - sum(share for *_, share in shares)) > 0:
        listed.append(f"{space.show_value(space.ignore)} = ignored ({share_text(ignored)})")
    return f"Mask values: {', '.join(listed)}; {stats.label_rule}."


def class_shares(stats: DatasetStats) -> list[tuple[int | str, str, float]]:
    """Return value, name and share of all pixels of each class, background first.

    A value is a number, or a color as "#rrggbb".
    """
    space = stats.space
    pixels = np.sum([stats.class_pixels(one) for one in stats.readable], axis=0)
    total = max(1, stats.value_counts.total())
    return [
        (color_text(value) if space.values_are_colors else value, name, float(count / total))
        for value, name, count in zip(space.values, space.names, pixels, strict=True)
    ]


def share_text(share: float) -> str:
    """Format a share as a percentage; a positive share is never shown as 0%."""
    return "< 0.1%" if 0 < share < 0.001 else f"{share:.1%}"
