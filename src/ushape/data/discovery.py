"""Listing of the cases in a folder, a table or a COCO file."""

from __future__ import annotations

import difflib
import glob
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ushape import io
from ushape.data.classes.names import StatedClasses
from ushape.data.classes.tables import folders_of_names, read_class_names
from ushape.data.layouts import LAYOUTS, MASK_LAYOUTS, SHAPE_LAYOUTS
from ushape.data.layouts.base import LayoutMatch, is_structure_set
from ushape.data.layouts.coco import pair_coco, read_coco_file
from ushape.data.layouts.foreign import describe_foreign
from ushape.data.layouts.listing import images_below, is_cellpose_result, listed_once
from ushape.data.layouts.named import pair_named
from ushape.data.layouts.run_lengths import pair_run_lengths
from ushape.data.layouts.segments import segment_classes
from ushape.data.layouts.structures import find_structures, pair_structures, with_structures
from ushape.data.layouts.table import TABLES, read_table
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.io import dicom, is_image
from ushape.io.annotations.run_tables import find_run_columns
from ushape.types import Case, Mask, MaskParts


@dataclass(frozen=True, kw_only=True)
class DatasetListing:
    """Annotated cases of a dataset, before any image is read."""

    cases: list[Case]
    """Cases sorted by id; groups and splits are set only if the dataset defines them."""

    layout: str
    """Layout that was found, in words."""

    notes: list[str]
    """Files that were left out, one line each."""

    classes: StatedClasses | None = None
    """Classes that the dataset defines."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names that the dataset defines, background first, in the order of their values."""
        return (self.classes.names or None) if self.classes else None


def discover(data: Path, masks: Path | None = None) -> DatasetListing:
    """Find images and their masks.

    Args:
        data: A folder, a table with the columns image and mask, or a COCO JSON file.
        masks: Folder or COCO JSON file of the masks, if `data` holds only the images, or a pattern
            for their names, such as `data/*_mask.png`.

    Raises:
        DataError: if a folder does not exist, if no pair is found, if there are several
            candidates, or if a table or COCO file is invalid.
    """
    with listed_once():
        found = with_structures(_find_pairs(data, masks))
    if found is None or not found.paired:
        raise _no_pairs(data, masks, found)
    if found.conflict:
        raise DataError(
            found.conflict,
            code="ambiguous_mask",
            hint="Select the mask files, for example with --masks 'DATA/*_mask.png'. To use the "
            "shapes instead, move the mask files to another folder.",
        )
    stated = found.classes
    if stated is None:
        files = [mask for mask in found.masks.values() if isinstance(mask, Path)]
        stated = read_class_names(*folders_of_names(data, masks, files))
    stated = stated or segment_classes(case.mask for case in found.cases)
    notes = [*_describe_rest(found), *found.notes]
    layout = f"{found.layout}; {found.example}" if found.example else found.layout
    return DatasetListing(cases=found.cases, layout=layout, notes=notes, classes=stated)


def find_masks(folder: Path) -> tuple[set[Path], str]:
    """Return the files of all masks in a data folder, and its layout in words.

    Without a layout that finds pairs, there are none.
    """
    try:
        with listed_once():
            found = _find_pairs(folder, None)
    except DataError:
        return set(), ""
    if found is None or not found.paired:
        return set(), ""
    return _mask_files(found), found.layout


def _mask_files(found: LayoutMatch) -> set[Path]:
    """Return all image files that hold masks."""
    files: set[Path] = set(found.other_masks)
    for mask in found.masks.values():
        if isinstance(mask, Path):
            files.add(mask)
        elif isinstance(mask, MaskParts):
            files.update(mask.paths)
    return files


def _find_pairs(data: Path, masks: Path | None) -> LayoutMatch | None:
    """Pair what the user names; otherwise use the first layout that finds pairs, or any match."""
    if masks is None and data.is_file() and data.suffix.lower() in TABLES:
        is_run_table = data.suffix.lower() != ".parquet" and find_run_columns(data) is not None
        return pair_run_lengths(data, data.parent) if is_run_table else read_table(data)
    if masks is None and data.is_file() and data.suffix.lower() == ".json":
        return read_coco_file(data)
    is_coco = masks is not None and masks.is_file() and masks.suffix.lower() == ".json"
    is_pattern = masks is not None and glob.has_magic(str(masks)) and not masks.exists()
    for given in (data, None if is_coco or is_pattern else masks):
        if given is not None and not given.is_dir():
            raise DataError(
                f"{given} {'is a file, not a folder' if given.exists() else 'does not exist'}.",
                code="not_a_folder",
                hint="Specify the folder of images and masks, a table or a COCO file."
                if given is data
                else "With --masks, specify the folder of the masks, a quoted pattern of their "
                "names, or a COCO file.",
            )
    if masks is not None:
        if is_coco:
            return pair_coco(masks, [data])
        return _pair_given(data, masks)
    return _first_of(LAYOUTS.values(), data)


def _pair_given(images: Path, masks: Path) -> LayoutMatch:
    """Pair images with the masks in a folder, or of a pattern: structure sets, or files by name."""
    if not masks.is_dir():
        return pair_named(images, masks)
    contours, failed = _first_pairs([pair_structures], images, masks)
    if contours is None and failed is None:
        return pair_named(images, masks)
    named, named_failed = _first_pairs([pair_named], images, masks)
    if named is not None and not all(map(is_structure_set, _paired_files(named))):
        return _contours_or_masks(masks, contours, failed, named)
    if contours is not None and (contours.paired or named is None):
        return contours
    if (error := failed or named_failed) is not None:
        raise error
    assert named is not None, "either a match or an error"
    return named


def _first_of(
    layouts: Iterable[Callable[[Path], LayoutMatch | None]], folder: Path
) -> LayoutMatch | None:
    """Return the first match that has pairs, also of the remaining layouts, otherwise any."""
    seen: LayoutMatch | None = None
    for find in layouts:
        found = _contours_or_segmentations(folder) if find is find_structures else find(folder)
        if found is not None and found.paired:
            return found
        seen = seen or found
    return _masks_or_shapes(folder) or seen


def _contours_or_segmentations(folder: Path) -> LayoutMatch | None:
    """Return DICOM structure sets, or the DICOM segmentations if they belong to more series.

    Raises:
        DataError: if `find_structures` raises it, and the segmentations have no pairs.
    """
    contours, failed = _first_pairs([find_structures], folder)
    if contours is None and failed is None:
        return None
    segmentations = [path for path in images_below(folder) if dicom.is_segmentation(path)]
    others = [find for find in LAYOUTS.values() if find is not find_structures]
    masks = _first_of(others, folder) if segmentations else None
    if masks is not None and _paired_files(masks) & set(segmentations):
        return _contours_or_masks(folder, contours, failed, masks)
    if failed is not None:
        raise failed
    if contours is None or not segmentations:
        return contours
    note = (
        f"Not used: {pluralize(len(segmentations), 'DICOM segmentation')} without a series of the "
        f"same name, e.g. {min(segmentations)}. To use them instead of the structure sets, specify "
        "--masks, or provide a table with the columns image and mask."
    )
    return replace(contours, notes=(*contours.notes, note))


def _contours_or_masks(
    folder: Path, contours: LayoutMatch | None, failed: DataError | None, masks: LayoutMatch
) -> LayoutMatch:
    """Return masks, or the structure sets next to them if these belong to more images.

    Args:
        failed: Why there is no match of the structure sets, if they cannot be used.
    """
    if contours is None or not contours.paired:
        notes = () if failed is None else (f"Not used: structure sets. {failed.message}",)
        return replace(masks, notes=(*masks.notes, *notes))
    return _of_more_images(folder, masks, contours)


def _paired_files(found: LayoutMatch) -> set[Path]:
    """Return the mask files of images."""
    return _mask_files(replace(found, masks={key: found.masks[key] for key in found.paired}))


def _masks_or_shapes(folder: Path) -> LayoutMatch | None:
    """Return the mask files, or the files of shapes if they belong to more images.

    Raises:
        DataError: if one of their layouts raises it, and the other kind has no pairs.
    """
    masks, failed = _first_pairs(MASK_LAYOUTS.values(), folder)
    files = _mask_files(masks) if masks is not None and masks.paired else set()
    shapes, shapes_failed = _first_pairs(SHAPE_LAYOUTS.values(), folder, files)
    if masks is None or not masks.paired:
        if (error := shapes_failed or failed) and not (shapes is not None and shapes.paired):
            raise error
        return shapes or masks
    if shapes is None or not shapes.paired:
        notes = () if shapes_failed is None else (f"Not used: shapes. {shapes_failed.message}",)
        return replace(masks, notes=(*masks.notes, *notes))
    return _of_more_images(folder, masks, shapes)


def _of_more_images(folder: Path, masks: LayoutMatch, shapes: LayoutMatch) -> LayoutMatch:
    """Return mask files or shapes, whichever belong to more images, and note what is not used."""
    files = _mask_files(masks)
    count, other = len(masks.paired), len(shapes.paired)
    texts = (
        f"mask files of {pluralize(count, 'image')}, e.g. {min(files)}",
        f"{shapes.layout} of {pluralize(other, 'image')}, e.g. {shapes.masks[shapes.paired[0]]}",
    )
    if count > other:
        note = f"Not used: {texts[1]}; there are {texts[0]}."
        return replace(masks, notes=(*masks.notes, note))
    if other > count:
        note = f"Not used: {texts[0]}; there are {texts[1]}."
        return replace(shapes, notes=(*shapes.notes, note), other_masks=tuple(sorted(files)))
    conflict = f"{folder}: there are {texts[0]}, and {texts[1]}."
    return replace(masks, conflict=conflict)


def _first_pairs(
    layouts: Iterable[Callable[..., LayoutMatch | None]], *given: Path | Collection[Path]
) -> tuple[LayoutMatch | None, DataError | None]:
    """Return the first match that has pairs, otherwise any, and the error if there was one."""
    seen: LayoutMatch | None = None
    try:
        for find in layouts:
            found = find(*given)
            if found is not None and found.paired:
                return found, None
            seen = seen or found
    except DataError as error:
        return seen, error
    return seen, None


def _describe_rest(found: LayoutMatch) -> list[str]:
    """Describe images without mask and masks without image, with the most similar names."""
    notes = []
    for what, other, ours, theirs in (
        ("image", "mask", found.images, found.masks),
        ("mask", "image", found.masks, found.images),
    ):
        alone = sorted(ours.keys() - theirs.keys())
        if alone:
            # A file that has its partner is not a candidate, however similar its name is.
            near = difflib.get_close_matches(alone[0], list(theirs.keys() - ours.keys()), n=1)
            nearest = f"; the most similar {other} is {_name_of(near[0], theirs)}" if near else ""
            name = _name_of(alone[0], ours)
            lack = f"{'has' if len(alone) == 1 else 'have'} no {other}"
            notes.append(f"Left out: {pluralize(len(alone), what)} {lack}, e.g. {name}{nearest}.")
    return notes


def _name_of(key: str, files: Mapping[str, Mask]) -> str:
    """Return the name of a file, with its folder if other files have the same name."""
    file = files[key]
    if not isinstance(file, Path):
        return str(file)
    names = Counter(own.name for own in files.values() if isinstance(own, Path))
    return file.name if names[file.name] == 1 else f"{file.parent.name}/{file.name}"


def _no_pairs(folder: Path, masks: Path | None, found: LayoutMatch | None) -> DataError:
    """Describe the files that were found, to show what is missing."""
    where = f"{folder} and {masks}" if masks else str(folder)
    lines = [f"No pairs of image and mask were found in {where}. It contains:"]
    for place in (folder, masks):
        if place is not None:
            lines += _describe_tree(place) if place.is_dir() else [f"  {place.name}: a file"]
    if found is not None:
        lines += _describe_rest(found)
    foreign = describe_foreign(masks or folder) if (masks or folder).is_dir() else None
    return DataError(
        "\n".join(lines),
        code="no_pairs",
        hint=foreign
        or "Use folders images/ and masks/ with equal file names, or names such as x.png and "
        "x_mask.png; or specify --masks MASKS, or provide a table with the columns image and "
        "mask.",
    )


def _describe_tree(folder: Path, most: int = 8) -> list[str]:
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in below.parts)
        if path.is_file() and not is_hidden:
            key = (below.parent.as_posix(), io.suffix_of(path))
            counts[key] += 1
            first.setdefault(key, path)
    if not counts:
        return [f"  {folder}: empty"]
    lines = [
        f"  {folder.name}/{'' if parent == '.' else parent + '/'}: {count} × "
        f"{suffix or 'no suffix'}, e.g. {first[parent, suffix].name}"
        + ("" if _is_read(first[parent, suffix]) else " (unsupported format)")
        for (parent, suffix), count in list(counts.items())[:most]
    ]
    if len(counts) > most:
        lines.append(f"  ... and {len(counts) - most} more folders or file types")
    return lines


def _is_read(path: Path) -> bool:
    return is_image(path) and not is_cellpose_result(path)
