"""Images that a command names, as its model reads them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ushape import io
from ushape.data.inputs import Input, find_inputs, group_inputs
from ushape.data.preprocessing import by_group
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.inference.predictor import Predictor
from ushape.io.files import real_path
from ushape.io.listing import RealPaths
from ushape.types import Case, Pixels, files_of


def find_images(
    predictor: Predictor,
    images: Iterable[Path | str] | Path | str,
    on_note: Callable[[str], None] = lambda note: None,
    read: Callable[[Path], Pixels] = io.read,
) -> list[Input]:
    """Return the images that are named, as the predictor reads them.

    Args:
        on_note: Receives a line about masks that were left out, one about volumes in time, and one
            about the groups in which images are preprocessed.
        read: Function that reads an image, to count its channels.

    Raises:
        DataError: if a name is not a path, or `find_inputs` raises it.
        MissingPackageError: if a package that reads one of the files is not installed.
    """
    named = [images] if isinstance(images, (str, Path)) else list(images)
    other = [one for one in named if not isinstance(one, (str, Path))]
    if other:
        raise DataError(
            f"An object of type {type(other[0]).__name__} is among the paths of the images.",
            code="not_a_path",
            hint="Predict arrays one at a time: ushape.load(RUN).predict(array).",
        )
    plan = predictor.plan
    channels, dims = plan.preprocessing.channels, plan.image_dims
    paths = [Path(path) for path in named]
    found = find_inputs(paths, channels=channels, dims=dims, on_note=on_note, read=read)
    io.check_packages(path for image in found for path in files_of(image.case))
    plans = [member.plan for member in predictor.members]
    if grouping := next((own for own in plans if own.preprocessing.needs_group), None):
        are_single = grouping.group_noun == "images"
        option = grouping.recipe.groups or grouping.group_rule
        found, rule = group_inputs(found, option, are_single=are_single)
        on_note(_describe_groups([one.case for one in found], rule))
    return found


def _describe_groups(cases: Sequence[Case], rule: str) -> str:
    """Describe how images are grouped, name three groups, and explain how to set others."""
    groups = by_group(cases)
    first = [f"{name} ({pluralize(len(ids), 'image')})" for name, ids in groups.items()][:3]
    more = f" and {len(groups) - 3} more" if len(groups) > 3 else ""
    return (
        f"The images are preprocessed in {pluralize(len(groups), 'group')}, {rule}: "
        f"{', '.join(first)}{more}. To set other groups, pass a table with the columns image and "
        "group."
    )


def without_own_outputs(inputs: Sequence[Input], folder: Path | None) -> list[Input]:
    """Leave out the masks of an earlier call, if the output folder is below the input folder."""
    if folder is None:
        return list(inputs)
    place, paths = real_path(folder), RealPaths()
    start = str(place).rstrip(os.sep) + os.sep
    others = [one for one in inputs if not paths.of(one.case.image).startswith(start)]
    return others or list(inputs)  # All of them are in that folder, so they were named on purpose.
