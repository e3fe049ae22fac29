"""Several finds, one for each part of a given split, as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from ushape.data.layouts.classes import merge_classes
from ushape.data.layouts.found import Found
from ushape.types import Split

T = TypeVar("T")


def join_parts(
    found: Mapping[Split, Found],
    names: Mapping[Split, str],
    layout: str,
    notes: tuple[str, ...] = (),
) -> Found:
    """Keys get the part's name in front, since the same name may be in two parts.

    Raises:
        DataError: a mask value has different names in two parts.
    """

    def join(values_of: Callable[[Found], Mapping[str, T]]) -> dict[str, T]:
        return {
            f"{names[part]}/{key}": value
            for part, own in found.items()
            for key, value in values_of(own).items()
        }

    parts = [(f"{names[part]}/{key}", part) for part, own in found.items() for key in own.images]
    return Found(
        layout=layout,
        images=join(lambda own: own.images),
        masks=join(lambda own: own.masks),
        channels=join(lambda own: own.channels),
        groups=join(lambda own: own.groups),
        metadata=join(lambda own: own.metadata),
        splits=dict(parts),
        classes=merge_classes(own.classes for own in found.values()),
        notes=notes + tuple(note for own in found.values() for note in own.notes),
    )
