"""Shared by layouts of annotation tools: images by their listed names, labels as classes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ushape.data.classes.names import StatedClasses
from ushape.data.layouts.base import LayoutMatch, index_images, splits_of
from ushape.data.layouts.listing import images_below
from ushape.data.layouts.names import key_below
from ushape.errors import DataError
from ushape.formatting import natural_order, pluralize
from ushape.io import stem_of
from ushape.io.annotations.shape_files import (
    IGNORE_CODE,
    IGNORE_LABEL,
    codes_of_labels,
    read_shapes,
)
from ushape.io.annotations.shapes import Shape
from ushape.types import Mask, ShapesFormat, ShapesMask

NO_AREA_HINT = (
    "Bounding boxes, points and lines do not determine the pixels of an object. Draw polygons or "
    "masks, or convert the boxes with a tool such as Segment Anything."
)


class ImageIndex:
    """All images below a folder, found by the names that an annotation file lists.

    Args:
        masks: Files that are not images.
    """

    def __init__(self, folder: Path, masks: Collection[Path] = ()):
        left_out = set(masks)
        self.paths = [path for path in images_below(folder) if path not in left_out]
        self._by_name: dict[str, list[Path]] = {}
        for path in self.paths:
            for name in {path.name, stem_of(path)}:
                self._by_name.setdefault(name, []).append(path)

    def find(self, listed: str, near: Sequence[Path] = ()) -> Path | None:
        """Return the image with a listed name; None if there is none.

        The name may contain folders, also absolute or with backslashes, and may lack the suffix.
        Of several images, one below `near` with exactly this path is preferred, then the one whose
        path agrees with the most of the listed folders.

        Raises:
            DataError: if several images fit equally well.
        """
        parts = PurePosixPath(listed.replace("\\", "/")).parts
        found = self._by_name.get(parts[-1], []) if parts else []
        for place in near:
            exact = [path for path in found if path.parent == place.joinpath(*parts[:-1])]
            if len(exact) == 1:
                return exact[0]
        agreeing = [_agreeing_parts(path, parts) for path in found]
        best = [path for path, n in zip(found, agreeing, strict=True) if n == max(agreeing)]
        if len(best) > 1:
            raise DataError(
                f"Two images are named {listed}: {best[0]} and {best[1]}.",
                code="ambiguous_image",
                hint="Remove one of them, or list the images with their folders.",
            )
        return best[0] if best else None


def _agreeing_parts(path: Path, parts: Sequence[str]) -> int:
    """Return how many folders of a path, from the last one on, are those of a listed name."""
    count = 0
    for own, listed in zip(reversed(path.parent.parts), reversed(parts[:-1]), strict=False):
        if own != listed:
            break
        count += 1
    return count


def pair_shape_files(
    files: Iterable[Path],
    kind: ShapesFormat,
    find_image: Callable[[Path], Path | None],
    *,
    tool: str,
    hint: str = "Remove one of them.",
) -> tuple[dict[Path, ShapesMask], list[str]]:
    """Pair files of shapes, one for each image.

    Args:
        find_image: Returns the image of a file; None if there is none.
        tool: Tool that wrote the files, for errors.
        hint: How to fix two files of one image.

    Returns:
        The shapes by the path of their image, and the files whose image was not found.

    Raises:
        DataError: if two files belong to one image.
    """
    shapes: dict[Path, ShapesMask] = {}
    missing: list[str] = []
    for path in files:
        image = find_image(path)
        if image is None:
            missing.append(str(path))
        elif image in shapes:
            raise DataError(
                f"Two files of {tool} belong to {image}: {shapes[image].path} and {path}.",
                code="ambiguous_mask",
                hint=hint,
            )
        else:
            shapes[image] = ShapesMask(path, kind, image)
    return shapes, missing


def match_shapes(
    folder: Path,
    layout: str,
    masks: Mapping[Path, ShapesMask],
    *,
    source: Path,
    names: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
    images: Sequence[Path] = (),
) -> LayoutMatch:
    """Return the match of annotated images, with the labels of their shapes as classes.

    An image is left out if one of its shapes has no area, since its pixels are unknown. A file that
    cannot be read is kept, so that it is reported with the other problems of the data.

    Args:
        masks: Shapes by the path of their image; their `classes` are set here.
        source: File or folder that defines the labels.
        names: Name of each label; None if labels are names. Its order is that of the classes.
        missing: Listed names of images that were not found.
        images: Additional images, which have no shapes.

    Raises:
        DataError: if all images are left out.
    """
    labels: set[str] = set()
    without_area: dict[Path, Shape] = {}
    for image, mask in masks.items():
        try:
            shapes = read_shapes(mask).shapes
        except DataError:
            continue
        labels |= {shape.label for shape in shapes}
        if bare := next((shape for shape in shapes if shape.area is None), None):
            without_area[image] = bare
    kept = {image: mask for image, mask in masks.items() if image not in without_area}
    notes = _describe_left_out(masks, without_area, missing)
    if masks and not kept:
        raise DataError(notes[0], code="shapes_without_area", hint=NO_AREA_HINT)
    ordered = tuple(names or ())  # Also unused ones, so that other data have the same codes.
    classes = ordered + tuple(sorted(labels - set(ordered), key=natural_order))
    listed = index_images(
        [
            (_key_of(image, folder), image)
            for image in sorted({*images, *kept})
            if image not in without_area
        ]
    )
    keyed: dict[str, Mask] = {
        _key_of(image, folder): replace(mask, classes=classes) for image, mask in kept.items()
    }
    return LayoutMatch(
        layout=layout,
        images=listed,
        masks=keyed,
        splits=splits_of(list(keyed)),
        classes=_stated_classes(source, classes, labels, names or {}),
        notes=tuple(notes),
    )


def _key_of(image: Path, folder: Path) -> str:
    """Return the key of an image, without the folder called images."""
    *parts, name = key_below(image, folder).split("/")
    return "/".join([*(part for part in parts if part.lower() != "images"), name])


def _stated_classes(
    source: Path, classes: tuple[str, ...], used: Collection[str], names: Mapping[str, str]
) -> StatedClasses | None:
    codes = {label: code for label, code in codes_of_labels(classes).items() if label in used}
    shown = {code: names.get(label, label) for label, code in codes.items() if code}
    ignore = IGNORE_CODE if shown.pop(codes.get(IGNORE_LABEL, -1), None) else None
    if not shown:
        return None
    return StatedClasses(
        source=source,
        names=("background", *shown.values()),
        values=(0, *shown),
        ignore=ignore,
    )


def _describe_left_out(
    masks: Mapping[Path, ShapesMask], without_area: Mapping[Path, Shape], missing: Sequence[str]
) -> list[str]:
    notes = []
    if without_area:
        image, shape = next(iter(without_area.items()))
        notes.append(
            f"Left out: {pluralize(len(without_area), 'image')} with shapes that have no area, "
            f"e.g. {masks[image]}: {shape.place} is a {shape.kind}."
        )
    if missing:
        notes.append(
            f"Left out: {pluralize(len(missing), 'annotated image')} not found, e.g. {missing[0]}."
        )
    return notes
