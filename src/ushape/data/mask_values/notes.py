"""Decisions on mask values that the user should know, with the option that overrides each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ushape.data.classes.names import StatedClasses
from ushape.data.mask_stats import VOID
from ushape.data.mask_values.reading import MaskReading, form_of
from ushape.data.mask_values.soft_edges import SoftClasses
from ushape.formatting import pluralize
from ushape.labels.space import values_text


@dataclass(frozen=True, kw_only=True)
class ValueNote:
    """A decision on mask values that the user should know."""

    check: str
    """Short name, like that of a check."""

    text: str
    fix: str
    """How to override it."""

    cases: tuple[str, ...] = ()
    severity: Literal["warning", "note"] = "warning"
    is_corrected: bool = False
    """Whether `ushape check --fix` writes the masks with the values of the classes."""


def threshold_between(low: int, high: int) -> int:
    """Return the smallest value that is nearer to the higher of two values."""
    return (low + high + 1) // 2


def note_united(reading: MaskReading, chosen: int, others: Sequence[int]) -> ValueNote:
    """Return the note that several values mean foreground, in masks of different encodings."""
    listed = ", ".join(
        f"{reading.show(value)} in {pluralize(len(reading.owners([value])), 'mask')}"
        for value in (chosen, *others)
    )
    return ValueNote(
        check="encoding",
        text=f"The masks have several encodings with the same meaning. Foreground is {listed}. "
        "Predictions use the encoding of most masks.",
        fix="No action is needed if this is right. If they are different classes, list them: "
        f"{reading.setting((0, *sorted((chosen, *others))))}.",
        cases=reading.owners(others),
        is_corrected=True,
    )


def note_compared_by_color(reading: MaskReading) -> ValueNote | None:
    """Return the note that masks of different encodings are compared by color; None if none is."""
    forms = {
        stats.case.id: form_of(stats) for stats in reading.cases if stats.value_counts.keys() - {0}
    }
    counts = Counter(forms.values())
    if not reading.are_colors or len(counts) < 2:
        return None
    common = counts.most_common(1)[0][0]
    listed = ", ".join(f"{count} as {form}" for form, count in counts.most_common())
    return ValueNote(
        check="encoding",
        text=f"The masks have several encodings: {listed}. Pixels that are displayed in the same "
        "color have the same class. Predictions use the encoding of most masks.",
        fix="No action is needed if this is right. Otherwise, save all masks with the same "
        "encoding.",
        cases=tuple(case for case, form in forms.items() if form != common),
        is_corrected=True,
    )


def note_soft(reading: MaskReading, soft: SoftClasses) -> ValueNote:
    """Return the note that pixels with intermediate values belong to the nearest class."""
    values = soft.values
    if reading.are_colors or len(values) > 2:
        how = f"the nearest of {', '.join(map(reading.show, values))}"
        other = f"{reading.setting(values)} --set labels.nearest=true"
    else:
        middle = threshold_between(values[0], values[1])
        how = f"the nearer one of {values[0]} and {values[1]} (values from {middle} are foreground)"
        other = f"--set labels.threshold={middle}, or another threshold"
    return ValueNote(
        check="soft_edges",
        text=f"In {pluralize(len(soft.cases), 'mask')}, edges are soft due to antialiasing or "
        f"lossy compression. {soft.moved_share:.2%} of all pixels have values that are not "
        f"classes, and {soft.unsure_share:.2%} lie halfway between two classes. Each is read "
        f"as {how}.",
        fix="Save masks without antialiasing and not as JPEG, or confirm the classes with "
        f"{other}.",
        cases=soft.cases,
        is_corrected=True,
    )


def note_objects(reading: MaskReading) -> ValueNote:
    """Return the note that object ids are read as foreground."""
    most = max(map(len, reading.ids))
    return ValueNote(
        check="object_ids",
        text="The masks contain object ids instead of classes: each value is one connected object, "
        f"and a mask has up to {most} objects. All objects are read as foreground.",
        fix="Confirm it with --set labels.instances=true. If the values are classes: --set "
        "labels.instances=false, or list them: --set labels.values=[0,1,2].",
        cases=tuple(stats.case.id for stats in reading.cases if stats.parts_per_value),
    )


def note_possible_objects(reading: MaskReading) -> ValueNote:
    """Return the note that values that are read as classes may number objects."""
    values = sorted(set(reading.total) - {reading.background, reading.ignore})
    text = (
        f"The mask values {values_text(values)} are read as classes, but they may be object ids: "
        "in nearly every mask, each value is one connected object, and its position varies between "
        "the masks."
    )
    if reading.are_colors:
        text = (
            f"The {len(values)} colors of the masks are read as classes, but each may be a "
            "separate object: in nearly every mask, each color is one connected object, and most "
            "colors occur in a single mask."
        )
    return ValueNote(
        check="possible_object_ids",
        text=text,
        fix="If they are ids of objects of one class: --set labels.instances=true. If they are "
        "classes, no action is needed; --set labels.instances=false omits this note.",
        cases=tuple(stats.case.id for stats in reading.cases if stats.parts_per_value),
        severity="note",
    )


def note_unused_names(stated: StatedClasses) -> ValueNote:
    """Return the note that class names are not used, because the user specifies object ids."""
    return ValueNote(
        check="class_names",
        text=f"The classes defined in {stated.source} are not used, because labels.instances=true "
        "makes every value above 0 a foreground object.",
        fix="No action is needed if this is right. If the values are classes: --set "
        "labels.instances=false.",
    )


def note_overlap(cases: Sequence[str], pixels: int, hidden: int) -> ValueNote:
    """Return the note that annotated objects overlap.

    Args:
        cases: Ids of the cases in which they do.
        pixels: Number of pixels of an object that a later one covers; 0 if objects only lack pixels
            because they are too small, or because areas without objects cover them.
        hidden: Number of objects of which no pixel is left.
    """
    lost = ""
    if hidden:
        lost = f"{pluralize(hidden, 'object')} without any visible pixel is left out."
        if hidden > 1:
            lost = f"{hidden} objects without any visible pixel are left out."
    masks = pluralize(len(cases), "mask")
    if not pixels:
        return ValueNote(
            check="overlap",
            text=f"In {masks}, annotated objects do not contain the center of any pixel, or are "
            f"covered by background or by an area without objects. {lost}",
            fix="No action is needed if these objects are mistakes. Otherwise, draw them larger, "
            "or list them last.",
            cases=tuple(cases),
        )
    return ValueNote(
        check="overlap",
        text=f"In {masks}, annotated objects overlap ({pixels} pixels). Each pixel belongs to the "
        f"object that is listed last. {lost}".rstrip(),
        fix="No action is needed if the objects lie behind each other in this order; otherwise "
        "list those in front last. To count connected components instead: --set "
        "labels.instances=false.",
        cases=tuple(cases),
    )


def note_void(reading: MaskReading) -> ValueNote:
    """Return the note that the band around objects is ignored."""
    owners = reading.owners([VOID])
    return ValueNote(
        check="void",
        text=f"In {pluralize(len(owners), 'mask')}, the value {VOID} is a thin band around objects "
        f"({reading.share(VOID):.2%} of all pixels), as in PASCAL VOC. It is ignored in training "
        "and scores.",
        fix=f"Confirm it with --set labels.ignore={VOID}. If it is a class, list it: "
        f"{reading.setting(sorted(reading.total))}.",
        cases=owners,
    )


def note_background(reading: MaskReading, ordered: Sequence[int]) -> ValueNote:
    """Return the note about which value is regarded as the background, since none is 0 or black.

    Args:
        ordered: Values of the classes, the background first.
    """
    first = ordered[0]
    why = "the lowest one" if first == min(ordered) else "which most masks have at their border"
    other = (ordered[1], first, *ordered[2:])
    return ValueNote(
        check="background",
        text=f"No pixel of the masks is {'black' if reading.are_colors else '0'}. The value "
        f"{reading.show(first)} ({reading.share(first):.1%} of all pixels), {why}, is "
        "regarded as the background.",
        fix=f"If another value is the background, list it first: {reading.setting(other)}.",
    )
