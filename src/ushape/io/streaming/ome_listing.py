"""Metadata of an OME-Zarr image that list its label images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ushape.io.files import damaged, write_json
from ushape.io.ome_zarr import attributes_of, read_metadata

LABELS = "labels"
"""Name of the group that holds the label images of an image."""

NODE_FILES = (".zgroup", ".zattrs", ".zarray")
"""Metadata files of a group or array of Zarr 2."""

Listing = dict[str, Any]
"""Metadata with consolidated ones."""


def listed_labels(labels: Path) -> list[str]:
    """Return the names of the label images in their group, which may be missing.

    Raises:
        DataError, TypeError or ValueError: if the metadata are damaged.
    """
    return [str(name) for name in attributes_of(labels).get(LABELS) or []]


def list_label(labels: Path, name: str, *, is_new: bool) -> None:
    """Add a name to the list in the group of the label images, which is created if missing."""
    listed = listed_labels(labels)
    listed += [] if name in listed else [name]
    if is_new:
        path = labels / "zarr.json"
        stored: Listing = {"zarr_format": 3, "node_type": "group"}
        stored |= read_metadata(path) if path.exists() else {}
        attributes = stored.get("attributes") or {}
        known = attributes.get("ome")
        ome = {"version": "0.5", **(known if isinstance(known, dict) else {}), LABELS: listed}
        write_json(path, {**stored, "attributes": {**attributes, "ome": ome}})
        return
    path = labels / ".zattrs"
    write_json(path, {**(read_metadata(path) if path.exists() else {}), LABELS: listed})
    if not (labels / ".zgroup").exists():
        write_json(labels / ".zgroup", {"zarr_format": 2})


def read_listing(folder: Path, *, is_new: bool) -> Listing | None:
    """Return the metadata of a group that hold consolidated ones; None if there are none.

    Raises:
        DataError or ValueError: if they are damaged.
    """
    path = _listing_path(folder, is_new=is_new)
    if not path.exists():
        return None
    stored = read_metadata(path)
    if is_new and not stored.get("consolidated_metadata"):
        return None
    _nodes_of(folder, stored, is_new=is_new)
    return stored


def update_listing(folder: Path, labels: Path, name: str, *, is_new: bool) -> None:
    """Replace the metadata of a label image among the consolidated ones of a group.

    Args:
        folder: Group above the group `labels`, or the same.
    """
    stored = read_listing(folder, is_new=is_new)
    if stored is None:
        return
    nodes = _nodes_of(folder, stored, is_new=is_new)
    prefix = f"{(labels / name).relative_to(folder).as_posix()}/"
    for key in [key for key in nodes if f"{key}/".startswith(prefix)]:
        del nodes[key]
    group = labels / name
    for node in [labels, group, *sorted(path for path in group.iterdir() if path.is_dir())]:
        nodes |= _metadata_of(node, folder, is_new=is_new)
    # Readers expect the nodes of one group next to each other.
    ordered = sorted(nodes.items(), key=lambda pair: (pair[0].count("/"), pair[0]))
    nodes.clear()
    nodes |= dict(ordered)
    write_json(_listing_path(folder, is_new=is_new), stored)


def _listing_path(folder: Path, *, is_new: bool) -> Path:
    return folder / ("zarr.json" if is_new else ".zmetadata")


def _nodes_of(folder: Path, stored: Listing, *, is_new: bool) -> dict[str, Any]:
    """Return the consolidated metadata, by the path of the node or of its file."""
    consolidated = stored.get("consolidated_metadata") if is_new else stored
    nodes = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(nodes, dict):
        raise damaged(folder, "the consolidated metadata are not a JSON object")
    return nodes


def _metadata_of(node: Path, folder: Path, *, is_new: bool) -> dict[str, Any]:
    """Return the metadata of a group or array as a listing in `folder` holds them."""
    if node == folder and is_new:  # The listing is a part of its metadata.
        return {}
    found = {}
    for path in (node / name for name in (("zarr.json",) if is_new else NODE_FILES)):
        if path.is_file():
            key = (node if is_new else path).relative_to(folder).as_posix()
            found[key] = read_metadata(path)
            found[key].pop("consolidated_metadata", None)
    return found
