"""nnU-Net layout: imagesTr/NAME_0000, labelsTr/NAME, and dataset.json with the class names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ushape.data.classes.names import StatedClasses, classes_by_value
from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.listing import images_below
from ushape.data.layouts.names import stem_key
from ushape.errors import DataError
from ushape.io.files import JSON_HINT, read_json
from ushape.types import Split

_CHANNEL = re.compile(r"^(?P<name>.+)_(?P<number>\d{4})$")


def find_nnunet(folder: Path) -> LayoutMatch | None:
    """Find imagesTr/ and labelsTr/; imagesTs/ contains the test cases if labelsTs/ exists.

    Raises:
        DataError: if a case lacks a channel, or if dataset.json cannot be interpreted.
    """
    if not (folder / "imagesTr").is_dir() or not (folder / "labelsTr").is_dir():
        return None
    path = folder / "dataset.json"
    facts = (
        read_json(path, DataError, code="json_invalid", hint=JSON_HINT) if path.is_file() else {}
    )
    if not isinstance(facts, dict):
        raise DataError(
            f"{path}: is not a JSON object.",
            code="invalid_dataset_json",
            hint="Copy the file from the original dataset again.",
        )
    channels: dict[str, list[Path]] = {}
    masks: dict[str, Path] = {}
    splits: dict[str, Split] = {}
    has_test = (folder / "imagesTs").is_dir() and (folder / "labelsTs").is_dir()
    parts: list[tuple[str, Split]] = [("Tr", "train"), ("Ts", "test")] if has_test else [("Tr", "")]
    for ending, split in parts:
        images = folder / f"images{ending}"
        own = channels_of((stem_key(path, images), path) for path in images_below(images))
        twice = sorted(own.keys() & channels.keys())
        if twice:
            raise DataError(
                f"{folder}: {twice[0]} is in imagesTr and in imagesTs.",
                code="ambiguous_image",
                hint="Remove one of them.",
            )
        channels |= own
        labels = folder / f"labels{ending}"
        masks |= {stem_key(mask, labels): mask for mask in images_below(labels)}
        splits |= dict.fromkeys(own, split)
    _refuse_other_channels(folder, channels, facts.get("channel_names", facts.get("modality")))
    classes, notes = _classes_of(path, facts.get("labels"))
    return LayoutMatch(
        layout="nnU-Net: imagesTr/ next to labelsTr/",
        images={key: paths[0] for key, paths in channels.items()},
        masks=masks,
        channels={key: tuple(paths[1:]) for key, paths in channels.items()},
        splits=splits,
        classes=classes,
        notes=notes,
    )


def channels_of(keyed: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    """Return the files of each case, NAME_0000, NAME_0001, ..., in the order of their channels."""
    numbered: dict[str, list[tuple[int, Path]]] = {}
    for key, path in keyed:
        match = _CHANNEL.match(key)
        name, number = (match["name"], int(match["number"])) if match else (key, 0)
        numbered.setdefault(name, []).append((number, path))
    return {name: [path for _, path in sorted(files)] for name, files in numbered.items()}


def _refuse_other_channels(
    folder: Path, channels: Mapping[str, Sequence[Path]], named: Any
) -> None:
    """Check that every case has the channels 0000, 0001, ... that dataset.json names.

    If it names none, every case must have as many as the case with the most.
    """
    if not channels:
        return
    counts = [len(paths) for paths in channels.values()]
    wanted = len(named) if named else max(counts)
    for key, paths in sorted(channels.items()):
        numbers = [_number_of(path, folder) for path in paths]
        if numbers != list(range(wanted)):
            has = ", ".join(path.name for path in paths)
            raise DataError(
                f"{folder}: {key} has {has} channels, numbered from _0000, instead of {wanted}.",
                code="missing_channels",
                hint="Provide one file per channel for each case; dataset.json names the channels "
                "in channel_names.",
            )


def _number_of(path: Path, folder: Path) -> int:
    match = _CHANNEL.match(Path(stem_key(path, folder)).name)
    return int(match["number"]) if match else 0


def _classes_of(path: Path, labels: Any) -> tuple[StatedClasses | None, tuple[str, ...]]:
    """Return the names by value; the first version of the format has values by name."""
    if not labels:
        return None, ()
    if not isinstance(labels, dict):
        raise DataError(
            f"{path}: labels is not an object.",
            code="invalid_dataset_json",
            hint='Write {"background": 0, "cell": 1}.',
        )
    if any(isinstance(value, list) for value in labels.values()):
        return _regions_of(path, labels), ()
    name_of: dict[int, str] = {}
    for key, value in labels.items():
        name, code = (str(value), key) if str(key).isdigit() else (key, value)
        if not str(code).isdigit() or int(code) in name_of:
            raise DataError(
                f"{path}: the value {code} of the label {name} is not an integer or is used twice.",
                code="invalid_dataset_json",
                hint='Write {"background": 0, "cell": 1}.',
            )
        name_of[int(code)] = name
    ignore = next((code for code, name in name_of.items() if name.lower() == "ignore"), None)
    if ignore is not None:
        del name_of[ignore]
    return classes_by_value(path, name_of, ignore), ()


def _regions_of(path: Path, labels: Mapping[str, Any]) -> StatedClasses:
    """Return the regions, the largest first; a single number is a region of one label."""
    ignore, found = None, {}
    for name, value in labels.items():
        own = value if isinstance(value, list) else [value]
        if not all(isinstance(code, int) and not isinstance(code, bool) for code in own):
            raise DataError(
                f"{path}: the labels of the region {name}, {own}, are not integers.",
                code="invalid_dataset_json",
                hint='Write {"background": 0, "whole": [1, 2], "core": [2]}.',
            )
        if name.lower() == "ignore":
            ignore = own[0]
        elif own != [0]:
            found[name] = tuple(own)
    largest_first = sorted(found.items(), key=lambda item: -len(item[1]))
    return StatedClasses(source=path, regions=dict(largest_first), ignore=ignore)
