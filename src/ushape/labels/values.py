"""Decide which mask value is which class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ushape.errors import ConfigError, DataError
from ushape.labels.colors import color_text, name_color
from ushape.labels.config import LabelConfig
from ushape.labels.space import IGNORE, LabelSpace, Region, values_text

MAX_CLASSES = 64
"""Maximum number of classes; more distinct mask values are object IDs, soft edges or a photo."""


def find_label_space(
    counts: Mapping[int, int], config: LabelConfig, *, are_colors: bool = False
) -> tuple[LabelSpace, str]:
    """Decide which mask value is which class.

    The values listed in the config are used; otherwise a threshold; otherwise all values that
    occur, the lowest of which (0, black) is background.

    Args:
        counts: Number of pixels of each mask value over all annotated cases.
        config: The user's settings.
        are_colors: Whether the mask values are color codes.

    Returns:
        The label space, and the applied rule in words.

    Raises:
        DataError: if the masks have a single value, or too many values to be classes.
        ConfigError: if the regions do not fit the values.
    """
    found = sorted(value for value in counts if value != config.ignore)
    if config.threshold is not None:
        values: Sequence[int] = (0, 255 if max(found, default=0) > 1 else 1)
        rule = f"values from {config.threshold} are foreground (labels.threshold)"
    elif config.values is not None:
        values = config.values
        rule = "classes as named in labels.values"
    else:
        values = found
        shown = "-" if not found else color_text(found[0]) if are_colors else found[0]
        rule = f"the lowest value, {shown}, is background"
        _refuse_impossible(values, counts, are_colors=are_colors)
    names = config.names or _default_names(values, are_colors=are_colors)
    space = LabelSpace(
        values=tuple(values),
        names=tuple(names),
        ignore=config.ignore,
        threshold=config.threshold,
        softmax=config.softmax,
        regions=_find_regions(config.regions or {}, values),
        colors=tuple(values) if are_colors and config.threshold is None else None,
        nearest=config.nearest,
    )
    return space, rule


def _find_regions(
    regions: Mapping[str, Sequence[int]], values: Sequence[int]
) -> tuple[Region, ...]:
    """Convert regions of mask values to regions of class indices, each with its own class first."""
    found, later = [], [set(own) for own in regions.values()]
    for place, (name, own) in enumerate(regions.items()):
        if unknown := sorted(set(own) - set(values)):
            raise ConfigError(
                f"labels.regions: {name} contains the value {unknown[0]}, which is not a class.",
                code="unknown_class",
                hint=f"The classes are {values_text(values)}.",
            )
        alone = set(own).difference(*later[place + 1 :])
        if len(alone) != 1:
            raise ConfigError(
                f"labels.regions: {name} has {len(alone)} values that no later region "
                "contains; it needs exactly one, which is written to predicted masks.",
                code="regions_ambiguous",
                hint="List large regions first: {whole: [1, 2, 3], core: [2, 3], active: [3]}.",
            )
        order = [*alone, *(value for value in own if value not in alone)]
        index = {value: number for number, value in enumerate(values)}
        found.append(Region(name=name, classes=tuple(index[value] for value in order)))
    return tuple(found)


def _refuse_impossible(
    values: Sequence[int], counts: Mapping[int, int], *, are_colors: bool
) -> None:
    show = color_text if are_colors else str
    if len(values) < 2:
        raise DataError(
            f"The masks contain a single value ({values_text(values, show) or 'none'}), so there "
            "is nothing to learn.",
            code="single_mask_value",
            hint="Check that the masks belong to these images, and that objects are annotated.",
        )
    if len(values) > MAX_CLASSES:
        noun = "colors" if are_colors else "values"
        example = '["#000000","#ff0000"]' if are_colors else "[0,128,255]"
        bright = "make bright values foreground: --set labels.threshold=128"
        or_threshold = "" if are_colors else f", or {bright}"
        raise DataError(
            f"The masks contain {len(values)} different {noun}, too many to be classes.\n"
            f"{value_histogram(counts, show=show)}",
            code="too_many_mask_values",
            hint="If these files are the images, exchange the folders of images and masks, or name "
            "the masks with --masks. For masks with soft edges, or saved as JPEG, list the classes "
            "with the background first: "
            f"--set 'labels.values={example}' --set labels.nearest=true{or_threshold}. For object "
            "ids: --set labels.instances=true makes every object foreground."
            f"{state_all_classes(len(values))}",
        )


def state_all_classes(count: int) -> str:
    """Return the sentence that says how to define many classes; "" if the values are too many."""
    if not MAX_CLASSES < count <= IGNORE:
        return ""
    return (
        f" If all {count} values are classes, list them in a file classes.csv in the data folder, "
        "with value,name or name,r,g,b in its first line, then one class per line, background "
        "first; or in labels.values of a file ushape.yaml there."
    )


def value_histogram(
    counts: Mapping[int, int], most: int = 8, *, show: Callable[[int], str] = str
) -> str:
    """Return the most frequent mask values with their share of all pixels, one per line."""
    total = sum(counts.values())
    common = sorted(counts.items(), key=lambda item: -item[1])
    lines = [f"  {show(value)}: {count / total:.1%}" for value, count in common[:most]]
    if len(common) > most:
        rest = sum(count for _, count in common[most:])
        lines.append(f"  {len(common) - most} other values: {rest / total:.1%}")
    return "\n".join(lines)


def _default_names(values: Sequence[int], *, are_colors: bool) -> tuple[str, ...]:
    if len(values) == 2:
        return ("background", "foreground")
    if are_colors:
        names = [name_color(value) for value in values[1:]]
        is_unique = len(set(names)) == len(names)
        return ("background", *(names if is_unique else map(color_text, values[1:])))
    return ("background", *(f"class {value}" for value in values[1:]))
