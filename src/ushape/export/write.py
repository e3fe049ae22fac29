"""Write a graph to a file, prove that it computes what ushape computes, and describe it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ushape._version import __version__
from ushape.evaluation.storage import CARD
from ushape.export.formats import FORMATS, annotate, write_format
from ushape.export.graph import SegmentationGraph
from ushape.export.parity import Parity, prove_parity
from ushape.formatting import size_text
from ushape.io.files import write_bytes, write_json
from ushape.models.layers import normalizes_by_input

DESCRIPTION = "export.json"
"""Name of the file next to an exported graph that describes it."""

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
    write_bytes(folder / CARD, _card(graph, name, parity).encode())
    return path, parity


def describe_in_words(graph: SegmentationGraph) -> list[str]:
    """Return sentences about input, output and intensities, and what a graph leaves out."""
    source, axes = graph.source, ", ".join("zyx"[-graph.dims :])
    if source.options.output == "mask":
        space = source.space
        values = zip(space.names, map(space.show_value, space.values), strict=True)
        listed = ", ".join(f"{value} = {name}" for name, value in values)
        output = f"mask values (batch, {axes}): {listed}"
    else:
        count, names = len(graph.class_names), ", ".join(graph.class_names)
        output = f"probabilities (batch, {count}, {axes}): {names}"
    lines = [
        f"Input: raw pixels (batch, {graph.channels}, {axes}) as float32. Output: {output}.",
        describe_intensities(graph),
        *describe_limits(graph),
    ]
    if len(source.runs) > 1:
        lines.append(f"The graph averages the probabilities of {len(source.runs)} runs.")
    if source.left_out:
        lines.append(
            "Part of ushape predict, but not of the graph: the postprocessing chosen on the "
            f"validation data ({'; '.join(source.left_out)})."
        )
    return lines


def _card(graph: SegmentationGraph, name: str, parity: Parity) -> str:
    """Return the model card of an export: that of the run with a section about the export.

    The card of a run does not describe an ensemble, so that of an ensemble is the section alone.
    """
    runs = graph.source.runs
    card = runs[0].folder / CARD
    has_card = len(runs) == 1 and card.is_file()
    names = " and ".join(run.folder.name for run in runs)
    text = card.read_text(encoding="utf-8") if has_card else f"# Model of {names}\n"
    items = "\n".join(f"- {line}" for line in (*describe_in_words(graph), parity.text))
    return f"{text.rstrip()}\n\n## Export to {name}\n\n{items}\n"


def describe(graph: SegmentationGraph) -> dict[str, Any]:
    """Return what a user of a graph has to know, for its file and the one next to it."""
    source, axes = graph.source, "zyx"[-graph.dims :]
    is_mask = source.options.output == "mask"
    return {
        "ushape_version": __version__,
        "runs": [run.folder.name for run in source.runs],
        "input": {
            "name": "image",
            "axes": f"bc{axes}",
            "channels": graph.channels,
            "content": "raw pixels as stored in the image file, float32",
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
        "limits": describe_limits(graph),
        "receptive_field": [getattr(one, "receptive_field", None) for one in source.networks],
        "not_in_graph": list(source.left_out),
    }


def describe_intensities(graph: SegmentationGraph) -> str:
    """Return which statistics normalize the intensities of an image, as a sentence."""
    own = {
        member.plan.preprocessing.normalization is None for member in graph.source.predictor.members
    }
    if own == {False}:
        return (
            "Intensities are normalized with constants of the training images, so all parts "
            "of an image are normalized in the same way."
        )
    return (
        "Intensities are normalized with the statistics of each image, measured in the graph: "
        "pass whole images, because a part of an image would be normalized differently."
    )


def describe_limits(graph: SegmentationGraph) -> list[str]:
    """Return in which cases the scores of the runs do not apply to a graph, as sentences."""
    source, found = graph.source, []
    if any(map(normalizes_by_input, source.networks)):
        sizes = {size_text(member.plan.tile_shape) for member in source.predictor.members}
        found.append(
            "The layers of the network normalize with the statistics of their input, so the result "
            "depends on the size of the image. `ushape predict` divides images larger than "
            f"{' or '.join(sorted(sizes))} pixels into tiles of this size, for which the scores "
            "were measured; the graph does not."
        )
    if source.options.fixed_intensity and any(
        run.load_plan().preprocessing.normalization is None for run in source.runs
    ):
        found.append(
            "The scores of the run were measured with the statistics of each image instead of "
            "constants, and do not apply to this export."
        )
    if source.space.has_distance:
        found.append(
            "The object scores apply to objects separated by `ushape predict`; the graph does not "
            "separate objects."
        )
    if any(graph.halo):
        found.append(
            "Programs that divide images into tiles must let them overlap, and discard "
            f"{size_text(graph.halo)} pixels at each tile border inside the image: they depend on "
            "pixels outside the tile."
        )
    return found
