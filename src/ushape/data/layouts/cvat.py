"""CVAT for images: one XML file with the polygons and masks of many images."""

from __future__ import annotations

from pathlib import Path

from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.listing import annotation_folders, files_named, folders_below, images_below
from ushape.data.layouts.shapes import ImageIndex, match_shapes
from ushape.errors import DataError
from ushape.io.annotations.cvat import is_cvat, read_cvat
from ushape.types import ShapesMask


def find_cvat(folder: Path) -> LayoutMatch | None:
    """Find an XML file of CVAT in the folder or in annotations/ below it, and its images.

    Raises:
        DataError: if there are several such files, or one that cannot be read.
    """
    places = annotation_folders(folder)
    files = [path for place in places for path in files_named(place, "*.xml") if is_cvat(path)]
    if not files:
        return None
    if len(files) > 1:
        raise DataError(
            f"{folder}: there are several CVAT files: {', '.join(p.name for p in files)}.",
            code="ambiguous_annotations",
            hint="Put each file into a separate folder, together with its images.",
        )
    index = ImageIndex(folder)
    near = [folder, *(path for path in folders_below(folder) if path.name.lower() == "images")]
    masks: dict[Path, ShapesMask] = {}
    missing: list[str] = []
    for name in read_cvat(files[0]):
        image = index.find(name, near)
        if image is None:
            missing.append(name)
        else:
            masks[image] = ShapesMask(files[0], "cvat", image, entry=name)
    return match_shapes(
        folder,
        f"CVAT polygons and masks in {files[0].name}",
        masks,
        source=files[0],
        missing=missing,
        images=images_below(folder),
    )
