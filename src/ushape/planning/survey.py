"""Survey: one pass over all files, before anything is decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ushape.data.exam import Exam, examine_all, sum_values
from ushape.data.layouts.classes import StatedClasses
from ushape.data.prepare import mask_size_error
from ushape.data.store import join_errors
from ushape.errors import DataError
from ushape.labels import LabelConfig, LabelSpace, find_label_space
from ushape.types import Case


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All looks, in the order of the cases, and the label space they lead to."""

    looks: tuple[Exam, ...]
    space: LabelSpace
    rule: str
    """How the label space was found, in words."""

    @property
    def value_counts(self) -> Counter[int]:
        """Pixels of each mask value over all cases."""
        return sum_values(self.looks)

    def class_pixels(self, look: Exam) -> tuple[int, ...]:
        """Pixels of each class in a case."""
        return self.space.class_pixels(look.value_counts)

    def foreground_classes(self, look: Exam) -> frozenset[int]:
        """The foreground classes that a case has any pixel of."""
        pixels = self.class_pixels(look)
        return frozenset(index for index, count in enumerate(pixels) if index and count)

    def foreground_share(self, look: Exam) -> float:
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
    looks: list[Exam] = []
    failures: list[DataError] = []
    for done, exam in enumerate(examine_all(cases, workers), start=1):
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


def _trouble_of(exam: Exam) -> DataError | None:
    if exam.error is not None:
        return DataError(exam.error, hint=exam.hint)
    if exam.shape != exam.mask_shape:
        return mask_size_error(exam.case, exam.shape, exam.mask_shape)
    return None


def _refuse_mixed_channels(looks: Sequence[Exam]) -> None:
    for what in ("channels", "dimensions"):
        found: dict[int, Exam] = {}
        for look in looks:
            key = look.channels if what == "channels" else len(look.shape)
            found.setdefault(key, look)
        if len(found) > 1:
            listed = "; ".join(f"{key}: {look.case.image}" for key, look in sorted(found.items()))
            raise DataError(
                f"The images differ in their number of {what} ({listed}).",
                hint="Convert them to one kind, e.g. all grey or all RGB.",
            )
