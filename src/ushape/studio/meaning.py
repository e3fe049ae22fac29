"""Decision how annotations are encoded: as the user's masks, or as new ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ushape import io
from ushape.data.case_stats import scan_case
from ushape.data.classes.names import StatedClasses
from ushape.data.mask_values import interpret_masks
from ushape.errors import DataError, UshapeError
from ushape.formatting import quoted
from ushape.io.streaming import open_bands
from ushape.labels import IGNORE, LabelSpace
from ushape.planning.data_settings import SETTINGS_FILE, apply_data_settings
from ushape.planning.recipes import load_recipe
from ushape.studio.encoding import MaskTarget, new_target
from ushape.types import Case, MaskEncoding

MAX_SCANNED = 48
"""Largest number of masks from which the meaning of their values is inferred."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What mask values mean, and how new masks are written."""

    target: MaskTarget
    space: LabelSpace | None = None
    """Meaning of the values of the user's masks; None if there are none."""

    notes: tuple[str, ...] = ()


def infer_meaning(cases: Sequence[Case], data: Path, stated: StatedClasses | None) -> Meaning:
    """Infer the classes and the encoding of masks from some of them.

    Args:
        cases: Images with masks.
        data: Folder or table, next to which there may be a settings file.
        stated: Classes that the data define.

    Raises:
        DataError: if no mask can be read, or their values are ambiguous.
    """
    folder = data if data.is_dir() else data.parent
    recipe, note = apply_data_settings(load_recipe("auto"), data)
    step = -(-len(cases) // MAX_SCANNED)
    readable = [one for one in map(scan_case, cases[::step]) if one.error is None]
    if not readable:
        raise DataError(
            f"{folder}: none of the masks could be read.",
            code="no_readable_masks",
            hint=f"Run `ushape check {quoted(folder)}` to see the reasons.",
        )
    found = interpret_masks(readable, recipe.labels, stated)
    if found.space is None:
        error = found.error
        assert error is not None, "a label space or an error"
        place = f" The studio reads such settings from {folder / SETTINGS_FILE}."
        raise DataError(error.message, code=error.code, hint=f"{error.hint}{place}")
    notes = [note] if note else []
    return Meaning(
        target=target_of(found.space, found.encoding, cases),
        space=found.space,
        notes=(*notes, f"Masks: {found.rule}."),
    )


def target_of(space: LabelSpace, encoding: MaskEncoding, cases: Sequence[Case]) -> MaskTarget:
    """Return how masks are written: as the user's if these are single files in a usable format.

    If a threshold or the nearest class decides, no value is left for additional classes or pixels
    that are not annotated.
    """
    masks = [case.mask for case in cases if case.mask is not None]
    are_objects = space.states_objects and len(space.values) == 2
    has_free_values = are_objects or (space.threshold is None and not space.nearest)
    # Predicted objects are written with the background 0, which is an object from threshold 0 on.
    has_free_values = has_free_values and space.threshold in (None, 1)
    if has_free_values and all(isinstance(mask, Path) and _is_writable(mask) for mask in masks):
        return MaskTarget(space=space, encoding=encoding, are_objects=are_objects)
    if are_objects:
        numbered = LabelSpace(values=(0, 1), names=space.names, threshold=1)
        own = MaskEncoding(dtype="uint16", suffix=".tif")
        return MaskTarget(space=numbered, encoding=own, are_objects=True, is_native=False)
    indices = LabelSpace(values=tuple(range(len(space.values))), names=space.names, ignore=IGNORE)
    return replace(target_without_masks(cases), space=indices, is_native=False)


def target_without_masks(cases: Sequence[Case]) -> MaskTarget:
    """Return how the first masks are written.

    The value is the number of the class: in palette images, or in volumes of the format of the
    image, if masks can be written in it.
    """
    target, first = new_target(), cases[0].image
    dims = 2
    with suppress(UshapeError, OSError), open_bands(first) as bands:
        dims = len(bands.shape) - 1
    if dims == 2:
        return target
    suffix = io.suffix_of(first)
    suffix = suffix if io.keeps_position(suffix) else ".tif"
    return replace(target, encoding=MaskEncoding(suffix=suffix))


def _is_writable(mask: Path) -> bool:
    return io.is_writable(io.suffix_of(mask).removeprefix(".ome"))
