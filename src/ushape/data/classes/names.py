"""Class names defined in a data folder, and their use as label settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ushape.errors import DataError
from ushape.labels import LabelConfig
from ushape.labels.colors import color_text


@dataclass(frozen=True, kw_only=True)
class StatedClasses:
    """Class names defined in a data folder, background first, and their mask values."""

    source: Path
    """File or folder that defines them."""

    names: tuple[str, ...] = ()
    values: tuple[int, ...] | None = None
    """Mask value of each name; None for the values found in the masks, in ascending order."""

    ignore: int | None = None
    """Mask value of pixels that are excluded from loss and scores."""

    colors: tuple[int, ...] | None = None
    """Color code of each name, if the file defines colors."""

    problem: str = ""
    """Reason why the file is not used; then the other fields are empty."""

    problem_fix: str = ""
    """How to fix it."""

    regions: Mapping[str, tuple[int, ...]] | None = None
    """Mask values of each overlapping region, the largest region first."""

    are_objects: bool = False
    """Whether mask values are object ids, so that everything except 0 is foreground."""

    @property
    def rule(self) -> str:
        """Origin of the classes, in words."""
        if self.are_objects:
            return "one mask per object, all of them foreground"
        return f"classes as named in {self.source.name}"


def merge_classes(found: Iterable[StatedClasses | None]) -> StatedClasses | None:
    """Combine the classes that several subsets of a dataset define.

    Raises:
        DataError: if one value has two names.
    """
    stated = [one for one in found if one is not None]
    if not stated or any(one.values is None for one in stated):
        return stated[0] if stated else None
    name_of: dict[int, str] = {}
    for one in stated:
        for value, name in zip(one.values or (), one.names, strict=True):
            if name_of.setdefault(value, name) != name:
                raise DataError(
                    f"The mask value {value} is named {name} in {one.source}, but {name_of[value]} "
                    f"in {stated[0].source}.",
                    code="conflicting_class_names",
                    hint="Use the same classes in the same order in all subsets.",
                )
    return classes_by_value(stated[0].source, name_of, ignore=stated[0].ignore)


def classes_by_value(
    source: Path, name_of: Mapping[int, str], ignore: int | None = None
) -> StatedClasses:
    """Return the classes in the order of their values."""
    values = tuple(sorted(name_of))
    return StatedClasses(
        source=source, names=tuple(name_of[v] for v in values), values=values, ignore=ignore
    )


def complete_labels(
    labels: LabelConfig,
    stated: StatedClasses | None,
    counts: Mapping[int, int],
    *,
    are_colors: bool = False,
) -> LabelConfig:
    """Complete the label settings of the user with the classes that the data folder defines.

    Names without values belong to 0, 1, ... if the masks hold no other values, otherwise to the
    values found, in ascending order. If there is one name less than values, the background, 0, has
    no name.

    Args:
        labels: Label settings of the user; they take precedence.
        counts: Number of pixels of each mask value over all cases.
        are_colors: Whether the mask values are color codes.

    Raises:
        DataError: if the names do not match the values.
    """
    if stated is None or labels.values is not None or labels.threshold is not None:
        return labels
    if stated.are_objects:
        return replace(labels, threshold=1)
    ignore = stated.ignore if labels.ignore is None else labels.ignore
    if stated.regions is not None:
        regions = labels.regions or dict(stated.regions)
        return replace(labels, regions=regions, ignore=ignore)
    found = tuple(sorted(value for value in counts if value != ignore))
    names, values = _match(stated, found, ignore, are_colors=are_colors)
    if len(values) != len(names) or (len(found) > 1 and not set(values) & set(found[1:])):
        show = color_text if are_colors else str
        shown = ", ".join(map(show, found[:8])) + (", ..." if len(found) > 8 else "")
        raise DataError(
            f"{stated.source} defines {len(stated.names)} classes, which do not match the "
            f"{len(found)} values of the masks ({shown}). The names are not used.",
            code="class_names_mismatch",
            hint="List every class, background first; to exclude a value from training and "
            "scores, use --set labels.ignore=VALUE.",
        )
    return replace(labels, values=values, names=labels.names or names, ignore=ignore)


def _match(
    stated: StatedClasses, found: Sequence[int], ignore: int | None, *, are_colors: bool
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names and their mask values; different numbers of them if they do not fit.

    Args:
        found: Values of the masks without the ignored one, in ascending order.
    """
    names, values = stated.names, stated.colors if are_colors else stated.values
    if values is not None:
        if ignore in values:
            names = tuple(n for v, n in zip(values, names, strict=True) if v != ignore)
            values = tuple(v for v in values if v != ignore)
        if len(values) == len(found) == 2 and values[0] == found[0] == 0:
            return names, tuple(found)  # 0 and 1 here, 0 and 255 there: the same two classes.
        return names, values
    if stated.values is not None:
        return names, ()  # The masks have colors, and the table does not contain them.
    in_order = tuple(range(len(names)))
    if len(names) == len(found) - 1 and found[0] == 0 and "background" not in names:
        return ("background", *names), tuple(found)
    return names, in_order if set(found) <= set(in_order) else tuple(found)
