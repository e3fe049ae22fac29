"""Survey: one pass over all files, before anything is decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ushape.data.cache import join_errors
from ushape.data.case_stats import CaseStats, duplicates_among, measure_cases, sum_values
from ushape.data.discovery import Discovery, discover
from ushape.data.duplicates import Duplicates
from ushape.data.grouping import Grouping, infer_groups, merge_groups_sharing_duplicates
from ushape.data.layouts.class_names import StatedClasses
from ushape.data.preprocessing import mask_size_error
from ushape.data.splits import refuse_too_few
from ushape.errors import DataError
from ushape.labels import LabelConfig, LabelSpace, find_label_space
from ushape.types import Case, CaseFacts


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All looks, in the order of the cases, and the label space they lead to."""

    looks: tuple[CaseStats, ...]
    space: LabelSpace
    rule: str
    """How the label space was found, in words."""

    @property
    def value_counts(self) -> Counter[int]:
        """Pixels of each mask value over all cases."""
        return sum_values(self.looks)

    def class_pixels(self, look: CaseStats) -> tuple[int, ...]:
        """Pixels of each class in a case."""
        return self.space.class_pixels(look.value_counts)

    def foreground_classes(self, look: CaseStats) -> frozenset[int]:
        """The foreground classes that a case has any pixel of."""
        pixels = self.class_pixels(look)
        return frozenset(index for index, count in enumerate(pixels) if index and count)

    def foreground_share(self, look: CaseStats) -> float:
        """Share of a case's pixels that are of any foreground class, 0 to 1."""
        pixels = self.class_pixels(look)
        return sum(pixels[1:]) / max(1, sum(pixels))


def survey_cases(
    cases: Sequence[Case],
    labels: LabelConfig,
    *,
    workers: int,
    stated: StatedClasses | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Survey:
    """Reads every image and mask once.

    Args:
        stated: What the data say about the values in their masks; `labels` wins.
        on_progress: Called with the number of cases done.

    Raises:
        DataError: naming every case that cannot be used; different channel counts; mask
            values that make no sense.
    """
    looks: list[CaseStats] = []
    failures: list[DataError] = []
    for done, exam in enumerate(measure_cases(cases, workers), start=1):
        trouble = _trouble_of(exam)
        if trouble is not None:
            failures.append(trouble)
        else:
            looks.append(exam)
        on_progress(done)
    if failures:
        raise join_errors(failures)
    _refuse_mixed_channels(looks)

    total = sum_values(looks)
    completed = complete_labels(labels, stated, total)
    space, rule = find_label_space(total, completed)
    if stated is not None and completed != labels:
        rule = stated.rule
    survey = Survey(looks=tuple(looks), space=space, rule=rule)
    for look in looks:  # Values that are no class are named with their file.
        try:
            survey.class_pixels(look)
        except DataError as error:
            raise DataError(f"{look.case.mask}: {error.message}", hint=error.hint) from None
    return survey


def complete_labels(
    labels: LabelConfig, stated: StatedClasses | None, counts: Mapping[int, int]
) -> LabelConfig:
    """What the user lays down, and where that is open what the data folder states.

    Names without values belong to 0, 1, ... where the masks hold no others, else to the values
    found, in rising order.

    Args:
        counts: Pixels of each mask value over all cases.

    Raises:
        DataError: other names than values.
    """
    if stated is None or labels.values is not None or labels.threshold is not None:
        return labels
    if stated.are_objects:
        return replace(labels, threshold=1)
    ignore = stated.ignore if labels.ignore is None else labels.ignore
    if stated.regions is not None:
        regions = labels.regions or dict(stated.regions)
        return replace(labels, regions=regions, ignore=ignore)
    values, names = stated.values, stated.names
    if values is None:
        found = tuple(sorted(value for value in counts if value != ignore))
        in_order = tuple(range(len(names)))
        values = in_order if set(found) <= set(in_order) else found
    elif ignore in values:
        names = tuple(n for v, n in zip(values, names, strict=True) if v != ignore)
        values = tuple(v for v in values if v != ignore)
    if len(values) != len(names):
        shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        raise DataError(
            f"{stated.source} names {len(names)} classes, the masks hold {len(values)} "
            f"values ({shown}).",
            hint="Name every class, background first; a value to ignore with "
            "--set labels.ignore=...",
        )
    return replace(labels, values=values, names=labels.names or names, ignore=ignore)


def _trouble_of(exam: CaseStats) -> DataError | None:
    if exam.error is not None:
        return DataError(exam.error, hint=exam.hint)
    if exam.shape != exam.mask_shape:
        return mask_size_error(exam.case, exam.shape, exam.mask_shape)
    return None


def _refuse_mixed_channels(looks: Sequence[CaseStats]) -> None:
    for what in ("channels", "dimensions"):
        found: dict[int, CaseStats] = {}
        for look in looks:
            key = look.channels if what == "channels" else len(look.shape)
            found.setdefault(key, look)
        if len(found) > 1:
            listed = "; ".join(f"{key}: {look.case.image}" for key, look in sorted(found.items()))
            raise DataError(
                f"The images differ in their number of {what} ({listed}).",
                hint="Convert them to one kind, e.g. all gray or all RGB.",
            )


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data folder, looked at and grouped."""

    folder: Path
    discovery: Discovery
    survey: Survey
    grouping: Grouping
    duplicates: tuple[Duplicates, ...]
    """Cases whose images are equal, or nearly."""

    @property
    def facts(self) -> list[CaseFacts]:
        """The cases with their groups and class sizes."""
        by_id = {look.case.id: self.survey.class_pixels(look) for look in self.survey.looks}
        return [CaseFacts(case, by_id[case.id]) for case in self.grouping.cases]


def look_at_data(
    folder: Path,
    masks: Path | None,
    labels: LabelConfig,
    *,
    workers: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Data:
    """Finds the pairs, reads each once, infers the groups.

    Args:
        on_progress: Called with the cases read and their number.

    Raises:
        DataError: nothing found; pairs that do not fit; mask values that make no sense.
    """
    discovery = discover(folder, masks)
    total = len(discovery.cases)
    refuse_too_few(total, total)
    survey = survey_cases(
        discovery.cases,
        labels,
        workers=workers,
        stated=discovery.classes,
        on_progress=lambda done: on_progress(done, total),
    )
    thumbnails = {look.case.id: look.thumbnail for look in survey.looks}
    grouping = infer_groups(discovery.cases, lambda case: thumbnails[case.id])
    duplicates = duplicates_among(survey.looks)
    return Data(
        folder=folder,
        discovery=discovery,
        survey=survey,
        grouping=merge_groups_sharing_duplicates(grouping, duplicates),
        duplicates=duplicates,
    )


def describe_data(data: Data) -> list[str]:
    """What was found, a line each."""
    looks, survey, space = data.survey.looks, data.survey, data.survey.space
    shapes = Counter(look.shape for look in looks)
    (common, count), several = shapes.most_common(1)[0], len(shapes)
    size = " × ".join(map(str, common))
    sizes = f"{size} pixels" if several == 1 else f"{several} sizes, mostly {size} ({count})"
    channels = looks[0].channels
    kind = {1: "1 channel (gray)", 3: "3 channels (RGB)"}.get(channels, f"{channels} channels")
    lines = [
        f"{len(looks)} pairs of image and mask ({data.discovery.layout}); {sizes}, {kind}, "
        f"{', '.join(sorted({look.dtype for look in looks}))}.",
    ]
    counts = survey.value_counts
    total = sum(counts.values())
    if space.threshold is None:
        meaning = dict(zip(space.values, space.names, strict=True))
        shares = [
            f"{value}: {share_text(counts[value] / total)} → "
            + ("ignored" if value == space.ignore else meaning.get(value, "no class"))
            for value in sorted(counts)
        ]
        lines.append(f"Mask values {', '.join(shares)}; {survey.rule}.")
    else:
        above = sum(n for value, n in counts.items() if value >= space.threshold)
        lines.append(f"Mask values: {survey.rule}, {share_text(above / total)} of all pixels.")
    if space.regions:
        listed = "; ".join(
            f"{region.name} = {', '.join(str(space.values[index]) for index in region.classes)}"
            for region in space.regions
        )
        lines.append(f"Regions, each learned by itself: {listed}.")
    empty = sum(survey.foreground_share(look) == 0 for look in looks)
    if empty:
        lines.append(f"{empty} masks ({empty / len(looks):.0%}) hold no foreground.")
    lines.append(f"Groups: {data.grouping.text}.")
    return lines + data.discovery.notes


def share_text(share: float) -> str:
    """A share as a percentage; never 0 % for something that is there."""
    return "< 0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")
