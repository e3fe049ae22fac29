"""Meaning of mask values: the only place that decides which value or color is which class.

Training, checks, plans and evaluation use the same decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ushape.data.case_stats import CaseStats
from ushape.data.classes.names import StatedClasses, complete_labels
from ushape.data.mask_stats import COMPRESSION_NOISE, VOID
from ushape.data.mask_values.notes import (
    ValueNote,
    note_background,
    note_compared_by_color,
    note_objects,
    note_possible_objects,
    note_soft,
    note_united,
    note_unused_names,
    note_void,
    threshold_between,
)
from ushape.data.mask_values.objects import (
    are_object_ids,
    find_overlaps,
    may_be_object_ids,
    number_objects,
    state_objects,
)
from ushape.data.mask_values.reading import MaskReading, find_equal_foreground, read_values
from ushape.data.mask_values.soft_edges import find_soft_classes
from ushape.errors import ConfigError, DataError
from ushape.labels import LabelConfig, LabelSpace, find_label_space
from ushape.labels.colors import colors_of
from ushape.types import MaskEncoding

VOID_SHARE = 0.8
"""Share of the pixels of 255 in thin bands around objects from which the value is ignored."""

NUMBERED = 64
"""Value below which few values may be numbers of classes; at least half of the higher ones must be
used.
"""


@dataclass(frozen=True, kw_only=True)
class MaskMeaning:
    """Classes of the mask values of a dataset."""

    labels: LabelConfig
    """Label settings of the user, completed with the classes that the data folder defines."""

    space: LabelSpace | None = None
    """None if the values cannot be interpreted."""

    error: DataError | None = None
    """Reason why the values cannot be interpreted."""

    rule: str = ""
    """How the classes were determined, in words."""

    encoding: MaskEncoding = field(default_factory=MaskEncoding)
    """Encoding in which predictions are written: the most common one."""

    notes: tuple[ValueNote, ...] = ()


def interpret_masks(
    cases: Sequence[CaseStats], labels: LabelConfig, stated: StatedClasses | None = None
) -> MaskMeaning:
    """Decide which mask value is which class.

    Args:
        cases: Statistics of all readable cases, at least one.
        labels: Label settings of the user; they take precedence.
        stated: Classes that the dataset defines.

    Raises:
        ConfigError: if the settings contradict each other, or do not match the masks.
    """
    notes: list[ValueNote] = []
    completed, reading = labels, MaskReading(cases, are_colors=False)
    if stated is not None and stated.problem:
        notes.append(ValueNote(check="class_names", text=stated.problem, fix=stated.problem_fix))
        stated = None
    if stated is not None and _are_ids(cases, labels):
        notes.append(note_unused_names(stated))
        ignore = stated.ignore if labels.ignore is None else labels.ignore
        labels, stated = replace(labels, ignore=ignore), None
    try:
        reading = _reading_for(cases, labels, stated)
        labels = _in_notation(reading, labels)
        if labels.ignore is None and (stated is None or stated.ignore is None):
            labels = _ignore_void(reading, labels, stated, notes)
        if (note := note_compared_by_color(reading)) is not None:
            notes.append(note)
        completed = _complete(reading, labels, stated, notes)
        space, rule = _find_space(reading, completed, notes, is_named=completed != labels)
    except DataError as error:
        return MaskMeaning(labels=completed, error=error, notes=tuple(notes))
    space, encoding = reading.write_as_usual(space)
    space = _with_objects(cases, space, labels, notes)
    if stated is not None and completed != labels:
        rule = stated.rule
    return MaskMeaning(
        labels=completed, space=space, rule=rule, encoding=encoding, notes=tuple(notes)
    )


def _with_objects(
    cases: Sequence[CaseStats], space: LabelSpace, labels: LabelConfig, notes: list[ValueNote]
) -> LabelSpace:
    """Return the space, after deciding whether annotations contain objects besides classes."""
    if labels.instances is False:
        return replace(space, has_instances=False)
    if state_objects(cases, labels.instances) or number_objects(cases, space):
        space = replace(space, has_instances=True)
    notes += find_overlaps(cases) if space.states_objects else []
    return space


def _reading_for(
    cases: Sequence[CaseStats], labels: LabelConfig, stated: StatedClasses | None
) -> MaskReading:
    """Return the masks as stored, or as colors if encodings or the named classes require it."""
    reading = read_values(cases, labels.ignore)
    named = labels.values or (stated.colors if stated is not None else None)
    if reading.are_colors or named is None or labels.threshold is not None:
        return reading
    shown = MaskReading(cases, are_colors=True, ignore=labels.ignore)
    is_palette = any(stats.encoding.kind == "palette" for stats in cases)
    if is_palette and not set(reading.total) <= set(named) and set(shown.total) <= set(named):
        return shown
    return reading


def _in_notation(reading: MaskReading, labels: LabelConfig) -> LabelConfig:
    """Return the settings of the user with colors, if masks are compared by color."""
    values = labels.values
    if not reading.are_colors or values is None:
        return labels
    found = set(reading.total) - {0}
    shown = tuple(colors_of(np.array(values), reading.encoding).tolist())
    if found & set(values) or not found & set(shown):
        return labels
    return replace(labels, values=shown)


def _find_space(
    reading: MaskReading, labels: LabelConfig, notes: list[ValueNote], *, is_named: bool
) -> tuple[LabelSpace, str]:
    """Return the label space and the rule; settings first, then inferences, then all values.

    Args:
        is_named: Whether the dataset, and not the user, defines the values in `labels`.

    Raises:
        DataError: if the values are ambiguous.
    """
    are_colors = reading.are_colors
    if labels.threshold is not None or labels.regions is not None:
        return find_label_space(reading.total, labels, are_colors=are_colors)
    if _are_ids(reading.cases, labels):
        return _unite_objects(reading, labels)
    if equal := find_equal_foreground(reading):
        notes[:] = [note for note in notes if note.check != "encoding"]
        return _unite(reading, labels, equal, notes)
    if labels.values is not None:
        soft = find_soft_classes(reading, labels.values) if is_named else None
        if soft is not None:
            notes.append(note_soft(reading, soft))
            labels = replace(labels, nearest=True)
        return find_label_space(reading.total, labels, are_colors=are_colors)
    if labels.instances is None and are_object_ids(reading):
        notes.append(note_objects(reading))
        return _unite_objects(reading, labels)
    if (soft := find_soft_classes(reading)) is not None:
        notes.append(note_soft(reading, soft))
        if are_colors or len(soft.values) > 2:
            chosen = replace(labels, values=soft.values, nearest=True)
            space, _ = find_label_space(reading.total, chosen, are_colors=are_colors)
            return space, "each pixel belongs to the class with the nearest color"
        threshold = threshold_between(*soft.values)
        space, _ = find_label_space(reading.total, replace(labels, threshold=threshold))
        return replace(space, values=soft.values), f"values from {threshold} are foreground"
    _refuse_mixed(reading)
    labels = _put_background_first(reading, labels, notes)
    space, rule = find_label_space(reading.total, labels, are_colors=are_colors)
    if len(space.values) > 2:
        _refuse_unclear_white(reading, labels)
    if labels.instances is None and may_be_object_ids(reading):
        notes.append(note_possible_objects(reading))
    return space, rule


def _are_ids(cases: Sequence[CaseStats], labels: LabelConfig) -> bool:
    """Return whether the user specifies that the values are object ids.

    If annotations contain objects in addition to classes, `labels.instances` refers to these.

    Raises:
        ConfigError: if the user lists the values of classes as well.
    """
    if not labels.instances or any(stats.instances is not None for stats in cases):
        return False
    if labels.values is not None:
        raise ConfigError(
            "labels.instances=true cannot be combined with labels.values for these masks, whose "
            "values would be object ids and classes at once.",
            code="settings_conflict",
            hint="Remove one of them: the values of a mask are either object ids or classes.",
        )
    return True


def _unite_objects(reading: MaskReading, labels: LabelConfig) -> tuple[LabelSpace, str]:
    """Return a space of two classes in which each value above the background is foreground."""
    lowest = reading.background + 1
    space, _ = find_label_space(reading.total, replace(labels, threshold=1))
    if lowest == 1:
        return space, "object ids, all of them foreground"
    space = replace(space, threshold=lowest, has_instances=True)
    return space, f"object ids from {lowest}, all of them foreground"


def _unite(
    reading: MaskReading, labels: LabelConfig, equal: Sequence[int], notes: list[ValueNote]
) -> tuple[LabelSpace, str]:
    """Return a space of two classes in which several values mean foreground."""
    chosen = equal[0]
    if labels.values is not None:
        chosen = next((value for value in labels.values if value in equal), chosen)
    values = labels.values if labels.values is not None else (0, chosen)
    if len(values) != 2 or set(values) != {0, chosen}:
        return find_label_space(reading.total, labels, are_colors=reading.are_colors)
    chosen_labels = replace(labels, values=values)
    space, _ = find_label_space(reading.total, chosen_labels, are_colors=reading.are_colors)
    others = [value for value in equal if value != chosen]
    space = replace(space, further_values=tuple((value, values.index(chosen)) for value in others))
    notes.append(note_united(reading, chosen, others))
    listed = " and ".join(map(reading.show, equal))
    return space, f"{listed} are foreground, in masks with different encodings"


def _ignore_void(
    reading: MaskReading,
    labels: LabelConfig,
    stated: StatedClasses | None,
    notes: list[ValueNote],
) -> LabelConfig:
    """Ignore the value 255 if it is the band around objects with numbers, as in PASCAL VOC."""
    is_named = VOID in (labels.values or (stated.values if stated is not None else None) or ())
    if is_named or reading.are_colors or labels.threshold is not None or VOID not in reading.total:
        return labels
    others = sorted(set(reading.total) - {0, VOID})
    highest = min(max(NUMBERED, 2 * len(others)), VOID - COMPRESSION_NOISE)
    if not others or others[-1] >= highest:
        return labels  # Gray levels such as 0, 128 and 255, or soft edges: 255 is a class.
    owners = [stats for stats in reading.cases if VOID in stats.value_counts]
    pixels = np.array([stats.value_counts[VOID] for stats in owners])
    share = float((pixels * [stats.void_share for stats in owners]).sum() / pixels.sum())
    if share < VOID_SHARE:
        return labels
    notes.append(note_void(reading))
    return replace(labels, ignore=VOID)


def _refuse_unclear_white(reading: MaskReading, labels: LabelConfig) -> None:
    """Refuse 255 together with small consecutive numbers: it may be a class, or ignored pixels.

    Raises:
        DataError: if the masks have such values.
    """
    others = sorted(set(reading.total) - {VOID, labels.ignore})
    is_class_or_void = VOID in reading.total and labels.ignore != VOID
    if reading.are_colors or not is_class_or_void or others != list(range(len(others))):
        return
    listed = ", ".join(map(str, others[:6])) + (", ..." if len(others) > 6 else "")
    raise DataError(
        f"The masks contain the classes {listed} and the value 255 ({reading.share(VOID):.1%} of "
        "all pixels), which may be a class, or mark pixels without annotation.",
        code="ambiguous_white",
        hint="Exclude it from training and scores with --set labels.ignore=255, or make it a class "
        f"with {reading.setting((*others, VOID))}.",
    )


def _refuse_mixed(reading: MaskReading) -> None:
    """Refuse grayscale masks together with color masks, if they have other colors.

    Raises:
        DataError: if masks of different encodings cannot be compared.
    """
    if not reading.are_colors:
        return
    by_kind: dict[str, set[int]] = {}
    examples: dict[str, str] = {}
    for stats, counts in zip(reading.cases, reading.counts, strict=True):
        by_kind.setdefault(stats.encoding.kind, set()).update(counts)
        if len(counts) > 1:
            examples.setdefault(stats.encoding.kind, str(stats.case.mask))
    gray = by_kind.pop("values", set()) - {0, 0xFFFFFF}
    colored = set[int]().union(*by_kind.values())
    if not colored or not gray or gray <= colored or "values" not in examples:
        return
    listed = "; ".join(f"{kind}: {path}" for kind, path in sorted(examples.items()))
    raise DataError(
        f"The masks have different encodings whose values cannot be compared ({listed}).",
        code="mixed_mask_encodings",
        hint="Save all masks with the same encoding, preferably as gray values.",
    )


def _put_background_first(
    reading: MaskReading, labels: LabelConfig, notes: list[ValueNote]
) -> LabelConfig:
    """Choose the background of masks in which no pixel is 0, or black."""
    found = sorted(value for value in reading.total if value != labels.ignore)
    if len(found) < 2 or found[0] == 0 or len(found) > 64:
        return labels
    frames = Counter(stats.frame_value for stats in reading.cases)
    common, count = frames.most_common(1)[0]
    first = common if not reading.are_colors and count > 0.75 * len(reading.cases) else found[0]
    if first == labels.ignore:
        first = found[0]
    ordered = (first, *(value for value in found if value != first))
    notes.append(note_background(reading, ordered))
    return replace(labels, values=ordered)


def _complete(
    reading: MaskReading,
    labels: LabelConfig,
    stated: StatedClasses | None,
    notes: list[ValueNote],
) -> LabelConfig:
    """Complete the settings with what the dataset defines; names that do not match are not used."""
    try:
        return complete_labels(labels, stated, reading.total, are_colors=reading.are_colors)
    except DataError as error:
        if error.code != "class_names_mismatch":
            raise
        soft = find_soft_classes(reading)
        if soft is not None and stated is not None and len(stated.names) == len(soft.values):
            centers = {value: reading.total[value] for value in soft.values}
            return complete_labels(labels, stated, centers, are_colors=reading.are_colors)
        notes.append(ValueNote(check="class_names", text=error.message, fix=error.hint))
        return labels
