"""DICOM structure sets (RTSTRUCT), which name the series of images that they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ushape.data.classes.names import StatedClasses
from ushape.data.layouts.base import LayoutMatch, index_images, is_structure_set, splits_of
from ushape.data.layouts.listing import images_below
from ushape.data.layouts.names import key_below
from ushape.errors import DataError
from ushape.formatting import natural_order, pluralize
from ushape.io import dicom, is_dicom_file
from ushape.io.annotations.rtstruct import StructureSet, read_structures, roi_key
from ushape.types import Mask, ShapesMask

BACKGROUND = "background"
"""Name of a region that is not drawn."""

SHOWN = 5
"""Number of regions that a note names."""


@dataclass(frozen=True)
class _Series:
    image: Path
    """The folder of the slices, or the file if there is only one."""

    uid: str
    frame: str


def find_structures(folder: Path) -> LayoutMatch | None:
    """Find DICOM series with contours, where nothing but DICOM files lies in the folder.

    Raises:
        DataError: if it is not certain which series a structure set belongs to.
    """
    files = images_below(folder)
    only_dicom = bool(files) and all(map(is_dicom_file, files))
    return pair_structures(folder, folder) if only_dicom else None


def find_structures_beside(folder: Path) -> LayoutMatch | None:
    """Find DICOM series with contours, also next to other images.

    Raises:
        DataError: if it is not certain which series a structure set belongs to.
    """
    return pair_structures(folder, folder)


def pair_structures(images: Path, masks: Path) -> LayoutMatch | None:
    """Pair each structure set with the series that it names, wherever their files lie.

    If the series is missing, the only one with the same frame of reference is used.

    Args:
        images: Folder of the series.
        masks: Folder of the structure sets; it may be the same one.

    Returns:
        None if there is no structure set.

    Raises:
        DataError: if a structure set fits several series, if a series has several structure sets,
            or if no structure set can be read.
    """
    files = [p for p in images_below(masks) if is_structure_set(p)]
    if not files:
        return None
    listed = _series_below(images)
    key_of = {one.image: _key_of(one.image, images) for one in listed}
    found: dict[Path, Path] = {}
    missing, by_frame = list[Path](), list[Path]()
    problems: list[DataError] = []
    for path in files:
        try:
            structures = read_structures(path)
        except DataError as error:
            problems.append(error)
            continue
        series, is_named = _series_of(path, structures, listed)
        if series is None:
            missing.append(path)
        elif series.image in found:
            raise DataError(
                f"Two structure sets belong to {series.image}: {found[series.image]} and {path}.",
                code="ambiguous_mask",
                hint="Remove one of them, or list the folders of the series and their structure "
                "sets in a table with the columns image and mask.",
            )
        else:
            found[series.image] = path
            by_frame += [] if is_named else [path]
    if problems and not found:
        raise problems[0]
    return LayoutMatch(
        layout="DICOM series and the structure sets (RTSTRUCT) that refer to them",
        images=index_images([(key_of[image], image) for image in found]),
        masks={key_of[image]: path for image, path in found.items()},
        splits=splits_of([key_of[image] for image in found]),
        notes=tuple(_describe_pairing(images, problems, missing, by_frame, key_of.keys() - found)),
    )


def _describe_pairing(
    folder: Path,
    problems: Sequence[DataError],
    missing: Sequence[Path],
    by_frame: Sequence[Path],
    bare: Collection[Path],
) -> Iterator[str]:
    """Yield notes about structure sets that do not name a series in the folder, and about others.

    Args:
        bare: Images without a structure set.
    """
    if problems:
        yield (
            f"Left out: {pluralize(len(problems), 'structure set')} that cannot be read, e.g. "
            f"{problems[0].message}"
        )
    if missing:
        yield (
            f"Left out: {pluralize(len(missing), 'structure set')} whose series is not in "
            f"{folder}, e.g. {missing[0]}."
        )
    if by_frame:
        yield (
            f"Other series: that of {pluralize(len(by_frame), 'structure set')} is missing, e.g. "
            f"of {by_frame[0]}; the only series with the same frame of reference is used instead."
        )
    if bare:
        yield f"Left out: {len(bare)} DICOM series without a structure set, e.g. {min(bare)}."


def _series_below(folder: Path) -> list[_Series]:
    """Return the series of images in a tree; damaged files are skipped."""
    found: dict[tuple[Path, str, str], list[Path]] = {}
    for path in images_below(folder):
        if is_dicom_file(path) and not is_structure_set(path):
            try:
                stated = dicom.series_of(path)
            except DataError:
                continue
            if stated is not None:
                found.setdefault((path.parent, *stated), []).append(path)
    return [
        _Series(place if len(paths) > 1 else paths[0], uid, frame)
        for (place, uid, frame), paths in found.items()
    ]


def _series_of(
    path: Path, structures: StructureSet, listed: Sequence[_Series]
) -> tuple[_Series | None, bool]:
    """Return the series of a structure set, and whether it names it.

    Raises:
        DataError: if several series fit.
    """
    named = [one for one in listed if one.uid in structures.series]
    fitting = named or [one for one in listed if one.frame in structures.frames]
    beside = [one for one in fitting if path.parent in (one.image, one.image.parent)]
    fitting = beside if len(beside) == 1 else fitting
    if len(fitting) > 1:
        raise DataError(
            f"{path}: {len(fitting)} series match these contours: "
            f"{', '.join(str(one.image) for one in fitting[:3])}.",
            code="ambiguous_image",
            hint="Keep only the series that the contours were drawn on, or list the folder of the "
            "series and this file in a table with the columns image and mask.",
        )
    return (fitting[0] if fitting else None), bool(named)


def _key_of(image: Path, folder: Path) -> str:
    """Return the path below the folder; dots in the name of a folder do not begin a suffix."""
    if not image.is_dir():
        return key_below(image, folder)
    return key_below(image / "slice", folder).rpartition("/")[0] or folder.name


def with_structures(found: LayoutMatch | None) -> LayoutMatch | None:
    """Return a match whose masks are structure sets with their regions as classes.

    A match with other masks is returned as it is.

    Raises:
        DataError: if the regions have no area.
    """
    if found is None or not found.paired:
        return found
    paths = {key: mask for key, mask in found.masks.items() if isinstance(mask, Path)}
    if len(paths) < len(found.masks) or not all(map(is_structure_set, paths.values())):
        return found
    read: dict[Path, StructureSet] = {}
    for key in found.paired:
        try:
            read[paths[key]] = read_structures(paths[key])
        except DataError:
            continue  # The error is reported when the mask is read.
    names, notes = _regions_in(read)
    if read and not names:
        raise DataError(
            f"{next(iter(read))}: no region has a closed contour.",
            code="shapes_without_area",
            hint="Points and lines do not determine the pixels of a region. Export the structure "
            "set with closed contours (CLOSED_PLANAR).",
        )
    masks: dict[str, Mask] = {
        key: ShapesMask(path, "rtstruct", found.images.get(key, path), classes=names)
        for key, path in paths.items()
    }
    classes = StatedClasses(
        source=next(iter(paths.values())),
        names=("background", *names),
        values=tuple(range(len(names) + 1)),
    )
    return replace(found, masks=masks, classes=classes, notes=(*found.notes, *notes))


def _regions_in(read: Mapping[Path, StructureSet]) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of all regions with an area, in alphabetical order, and notes about them."""
    spelled: dict[str, Counter[str]] = {}
    bare = Counter[str]()
    sets = Counter[str]()
    for structures in read.values():
        drawn = {roi_key(roi.name) for roi in structures.rois if roi.contours} - {BACKGROUND}
        sets.update(drawn)
        bare.update({roi.name for roi in structures.rois if roi_key(roi.name) not in drawn})
        for roi in structures.rois:
            if roi_key(roi.name) in drawn:
                spelled.setdefault(roi_key(roi.name), Counter())[roi.name] += 1
    name_of = {key: counts.most_common(1)[0][0] for key, counts in spelled.items()}
    names = tuple(sorted(name_of.values(), key=natural_order))
    notes = []
    if len(names) > 1:
        notes.append(
            f"Regions: the structure sets have {len(names)}; where regions overlap, the smaller "
            "one covers the larger one. To train on some of them only: --set "
            f"'labels.names=[background, {names[0]}]'."
        )
    some = {name_of[key]: count for key, count in sets.items() if count < len(read)}
    if some:
        notes.append(
            f"Missing regions: not all {len(read)} structure sets have {_list_of(some)}. In the "
            "others, their pixels are background."
        )
    never = {name: count for name, count in bare.items() if roi_key(name) not in name_of}
    if never:
        notes.append(
            "Regions: not used, since they have no closed contour or their name is background: "
            f"{_list_of(never)}."
        )
    return names, notes


def _list_of(counts: Mapping[str, int]) -> str:
    """Return the first names with their numbers of structure sets."""
    names = sorted(counts, key=natural_order)
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"{name} ({counts[name]})" for name in names[:SHOWN]) + rest
