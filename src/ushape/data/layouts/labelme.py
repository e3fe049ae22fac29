"""LabelMe: a JSON file for each image, or the folders that LabelMe exports."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ushape.data.classes.names import StatedClasses
from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.listing import annotations_below
from ushape.data.layouts.shapes import ImageIndex, match_shapes, pair_shape_files
from ushape.errors import DataError
from ushape.io.annotations.labelme import read_labelme_json
from ushape.io.files import read_head, real_path


def find_labelme(folder: Path, masks: Collection[Path] = ()) -> LayoutMatch | None:
    """Find JSON files of LabelMe and the images that they name.

    The image is the file at `imagePath`, otherwise one with the name of the JSON file.

    Args:
        masks: Files that are not images.

    Raises:
        DataError: if two files belong to one image, or if all images are left out.
    """
    files = [path for path in annotations_below(folder, "*.json") if _is_labelme_file(path)]
    if not files:
        return None
    index = ImageIndex(folder, masks)
    shapes, missing = pair_shape_files(
        files, "labelme", lambda path: _image_of(path, index), tool="LabelMe"
    )
    return match_shapes(
        folder,
        "LabelMe JSON files",
        shapes,
        source=folder,
        missing=missing,
        images=index.paths,
    )


def _image_of(path: Path, index: ImageIndex) -> Path | None:
    try:
        listed = str(read_labelme_json(path).get("imagePath") or "")
    except DataError:
        listed = ""
    if listed:
        beside = real_path(path.parent / listed.replace("\\", "/"))
        found = index.find(listed, near=[path.parent])
        if found is not None and (real_path(found) == beside or not beside.is_file()):
            return found
    return index.find(path.stem, near=[path.parent])


def _is_labelme_file(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    head = read_head(path)
    return b'"shapes"' in head or (b'"imagePath"' in head and b'"imageData"' in head)


def find_labelme_export(folder: Path) -> LayoutMatch | None:
    """Find the folders that `labelme_export_json` writes: img.png, label.png, label_names.txt.

    Raises:
        DataError: if a value has different names in two folders.
    """
    places = [
        path.parent
        for path in annotations_below(folder, "label_names.txt")
        if (path.parent / "img.png").is_file() and (path.parent / "label.png").is_file()
    ]
    if not places:
        return None
    names: dict[int, str] = {}
    first: dict[int, Path] = {}
    for place in places:
        text = (place / "label_names.txt").read_text(encoding="utf-8-sig", errors="replace")
        for value, name in enumerate(text.split("\n")):
            if not name.strip():
                continue
            if names.setdefault(value, name.strip()) != name.strip():
                raise DataError(
                    f"The mask value {value} is {names[value]} in {first[value]}, but "
                    f"{name.strip()} in {place}.",
                    code="conflicting_class_names",
                    hint="Export all files with one list of labels (labelme2voc), or use LabelMe's "
                    "JSON files, which ushape reads directly.",
                )
            first.setdefault(value, place)
    keys = {place.relative_to(folder).as_posix().removesuffix("_json"): place for place in places}
    return LayoutMatch(
        layout="folders exported from LabelMe, img.png next to label.png",
        images={key: place / "img.png" for key, place in keys.items()},
        masks={key: place / "label.png" for key, place in keys.items()},
        classes=StatedClasses(
            source=places[0] / "label_names.txt", names=tuple(names.values()), values=tuple(names)
        )
        if len(names) > 1
        else None,
    )
