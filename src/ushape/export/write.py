"""Write a graph to a file, prove that it computes what ushape computes, and describe it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ushape._version import __version__
from ushape.export.formats import FORMATS, annotate, write_format
from ushape.export.graph import SegmentationGraph
from ushape.export.parity import Parity, prove_parity
from ushape.io.files import write_json

DESCRIPTION = "export.json"
"""Name of the file beside an exported graph that describes it."""

MODEL = "model"
"""Name of the file of an exported graph, without its suffix."""


def write_checked(name: str, graph: SegmentationGraph, folder: Path) -> tuple[Path, Parity]:
    """Write a graph as FOLDER/model.* and its description as FOLDER/export.json.

    Args:
        name: One of FORMATS.
        folder: Existing folder.

    Returns:
        The file of the graph, and its comparison with ushape.

    Raises:
        MissingPackageError: if a package that the format needs is not installed.
        PlanError: if the graph cannot be expressed in the format, or differs from ushape.
    """
    path = folder / f"{MODEL}{FORMATS[name].suffix}"
    write_format(name, graph, path)
    parity = prove_parity(FORMATS[name].open(path), graph)
    found = {"format": name, **describe(graph), "parity": asdict(parity)}
    annotate(name, path, found)
    write_json(folder / DESCRIPTION, found)
    return path, parity


def describe(graph: SegmentationGraph) -> dict[str, Any]:
    """Return what a user of a graph has to know, for its file and the one beside it."""
    source, axes = graph.source, "zyx"[-graph.dims :]
    is_mask = source.options.output == "mask"
    return {
        "ushape_version": __version__,
        "runs": [run.folder.name for run in source.runs],
        "input": {
            "name": "image",
            "axes": f"bc{axes}",
            "channels": graph.channels,
            "content": "raw pixels as the image file holds them, float32",
        },
        "output": {
            "name": source.options.output,
            "axes": f"b{axes}" if is_mask else f"bc{axes}",
            "channels": None if is_mask else list(graph.class_names),
        },
        "classes": list(source.space.names),
        "mask_values": list(source.space.values),
        "thresholds": {
            region.name: rule.threshold
            for region, rule in zip(
                source.space.scored,
                source.predictor.tuning.rule.for_space(source.space),
                strict=True,
            )
        },
        "intensities": describe_intensities(graph),
        "not_in_graph": list(source.left_out),
    }


def describe_intensities(graph: SegmentationGraph) -> str:
    """Return which statistics normalize the intensities of an image, as a sentence."""
    own = {
        member.plan.preprocessing.normalization is None for member in graph.source.predictor.members
    }
    if own == {False}:
        return (
            "Intensities are normalized with constants of the training images, so parts of an "
            "image can be predicted separately."
        )
    return (
        "Intensities are normalized with the statistics of each image, measured in the graph: give "
        "it whole images, because a part of one would be normalized differently."
    )
