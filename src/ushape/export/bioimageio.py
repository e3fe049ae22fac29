"""Package of a run for the programs of the BioImage Model Zoo (bioimage.io).

The description has the version 0.5.7 of the format instead of the newest one: from 0.5.11 on, the
documentation and the covers are objects with a file name instead of a file name, which the parsers
of QuPath (qupath-bioimageio-spec) and deepImageJ (JDLL) reject. The official validator accepts all
versions of the format 0.5. For the same parsers, keys without a value are left out, and the list of
processing steps, since the graph contains them.

Source:
    Model description specification 0.5, https://github.com/bioimage-io/spec-bioimage-io
"""

from __future__ import annotations

import importlib
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import Any, BinaryIO

import numpy as np
import tifffile
import torch
import yaml
from PIL import Image

from ushape._version import __version__
from ushape.console import Console
from ushape.errors import ConfigError, PlanError, require_package
from ushape.evaluation.storage import Report
from ushape.export.formats import FORMATS, onnx_opset, write_format
from ushape.export.graph import ExportOptions, SegmentationGraph, build_graph
from ushape.export.parity import Parity, prove_parity
from ushape.export.publication import (
    Publication,
    card_text,
    published_folder,
    published_report,
    task_tags,
)
from ushape.export.sample import Origin, Sample, take_sample
from ushape.export.write import describe_intensities, describe_limits
from ushape.formatting import pluralize
from ushape.instances.contours import class_styles, drawing_colors
from ushape.io.files import real_path, write_bytes
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.planning.weights import checksum_of_file
from ushape.reports.report import escape_markdown
from ushape.transforms.overlay import as_rgb

FORMAT_VERSION = "0.5.7"

LIBRARY = "bioimageio.spec"

DESCRIPTION, DOCUMENTATION, COVER = "rdf.yaml", "README.md", "cover.png"
ONNX, TORCHSCRIPT = "weights.onnx", "weights.pt"

COVER_PX = 256
"""Height of the cover, which is twice as wide: the site asks for a ratio of 2 to 1."""

MIN_PX = {2: (32, 32), 3: (16, 32, 32)}
"""Smallest size along each axis, by the number of axes, or that of the test tensor if it is
smaller; the graph pads any larger one."""

MAX_NAME = 64
"""Number of characters from which the validator warns of a long name."""

MAX_DESCRIPTION = 512
"""Number of characters from which the validator warns of a long description."""

CITATIONS = {
    2: {
        "text": "Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image "
        "Segmentation",
        "doi": "10.1007/978-3-319-24574-4_28",
    },
    3: {
        "text": "Çiçek et al. 2016, 3D U-Net: Learning Dense Volumetric Segmentation from Sparse "
        "Annotation",
        "doi": "10.1007/978-3-319-46723-8_49",
    },
}
"""Publication of the U-Net, by its number of axes."""

SAMPLE_NOTES: dict[Origin, str] = {
    "validation": "The sample and the cover show part of a validation image, with which the "
    "settings of the model were chosen, because the run has no annotated test image. Results on "
    "new images may be worse.",
    "training": "The sample and the cover show part of an image with which the model was trained, "
    "because the run has no other annotated image. They do not show how well the model predicts "
    "new images.",
}
"""Sentence about the sample, unless it is cut out of a test image."""

MAX_PROBLEM = 200
"""Largest number of characters of a problem that is shown. That of a license lists all licenses."""


def export_package(
    runs: Sequence[Run], folder: Path, options: ExportOptions, console: Console
) -> None:
    """Write the files of a package into an empty folder, and validate them.

    Raises:
        MissingPackageError: if a package that is needed is not installed.
        RunError: if the run has no annotated image.
        ConfigError: if the license is not an SPDX identifier.
        PlanError: if the model cannot be exported, the weights differ from ushape, or the official
            validator rejects the package.
    """
    require_package(LIBRARY, "bioimageio", "Target bioimageio")
    if options.output != "probabilities":
        raise PlanError(
            "A bioimage.io package returns probabilities, because programs such as QuPath expect "
            "one channel for each class.",
            code="export_refused",
            hint="Omit --output mask.",
        )
    publication = Publication(authors=options.authors, license=options.license)
    _require_license(publication.license_id)
    graph, parity = build_graph(runs, options), {}
    for name, file in (("torchscript", TORCHSCRIPT), ("onnx", ONNX)):
        write_format(name, graph, folder / file)
        parity[name] = prove_parity(FORMATS[name].open(folder / file), graph)
        console.say(f"{name}: {parity[name].text}")
    for line in (describe_intensities(graph), *describe_limits(graph)):
        console.say(line)
    for line in fill_package(graph, folder, publication, parity):
        console.say(line)
    console.say(validate(folder))


def _require_license(name: str) -> None:
    known = importlib.import_module(f"{LIBRARY}.model.v0_5")
    for kind in (known.LicenseId, known.DeprecatedLicenseId):
        with suppress(ValueError):  # Exceptions of pydantic are of this kind.
            kind(name)
            return
    raise ConfigError(
        f"The license {name} is not an SPDX identifier, which bioimage.io requires.",
        code="unknown_license",
        hint="Choose one of https://spdx.org/licenses, for example --license MIT.",
    )


def fill_package(
    graph: SegmentationGraph,
    folder: Path,
    publication: Publication,
    parity: Mapping[str, Parity],
) -> list[str]:
    """Write all files of a package next to its weights.

    Args:
        folder: Folder with the weights as `ONNX` and `TORCHSCRIPT`.
        parity: Comparison of each kind of weights with ushape.

    Returns:
        Sentences about the content.

    Raises:
        RunError: if the run has no annotated image.
    """
    source = graph.source
    run = published_folder(source.runs)
    report, sample = published_report(run), take_sample(graph)
    for name, tensor in (("input", sample.image), ("output", sample.outputs)):
        np.save(folder / f"test_{name}.npy", tensor[None].astype(np.float32))
        _write_sample(folder / f"sample_{name}.tif", tensor)
    Image.fromarray(draw_cover(sample, source.plan)).save(folder / COVER, optimize=True)
    name = _name_of(run, source.plan)
    text = _documentation(name, graph, report, publication, sample.origin)
    write_bytes(folder / DOCUMENTATION, text.encode(errors="backslashreplace"))
    description = describe_model(name, graph, sample.image.shape[1:], report, publication)
    description["config"]["ushape"]["parity"] = {
        kind: {
            "largest_difference": own.largest_difference,
            "changed_pixels": own.changed_pixels,
            "pixels": own.pixels,
            "images": own.images,
        }
        for kind, own in parity.items()
    }
    description["weights"] = _weights(folder)
    content = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    write_bytes(folder / DESCRIPTION, content.encode())
    return [
        *publication.notes,
        f"The package contains part of a {sample.origin} image. Do not publish it if the image "
        "must remain private.",
    ]


def describe_model(
    name: str,
    graph: SegmentationGraph,
    shape: Sequence[int],
    report: Report | None,
    publication: Publication,
) -> dict[str, Any]:
    """Return the description of a model without its weights, as it is stored in rdf.yaml.

    Args:
        shape: Size of the test tensor along each axis.
    """
    plan = graph.source.plan
    network = plan.recipe.network
    # The validator refuses a halo for which the test tensor is too small.
    halo = [own if 2 * own < size else 0 for own, size in zip(graph.halo, shape, strict=True)]
    kind = "Network" if network.is_custom else "U-Net"
    summary = f"{kind} that segments {', '.join(plan.preprocessing.space.names[1:])}."
    if report is not None:
        summary += f" {report.summary.verdict}"
    if len(summary) > MAX_DESCRIPTION:
        summary = summary[: MAX_DESCRIPTION - 3].rsplit(" ", 1)[0] + "..."
    return {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": name,
        "description": summary,
        "authors": [{"name": author} for author in publication.authors],
        "cite": [] if network.is_custom else [CITATIONS[network.dims]],
        "license": publication.license_id,
        "tags": [*task_tags(plan), "segmentation", "ushape"],
        "documentation": DOCUMENTATION,
        "covers": [COVER],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [_tensor("input", shape, _channel_names(graph.channels), halo)],
        "outputs": [_tensor("output", shape, list(graph.class_names), halo)],
        # deepImageJ reads the nickname of a model that has no id of the zoo.
        "config": {
            "bioimageio": {"nickname": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")},
            "ushape": {"version": __version__},
        },
    }


def _tensor(
    kind: str, shape: Sequence[int], channels: list[str], halo: Sequence[int]
) -> dict[str, Any]:
    """Return the description of the input or the output.

    Args:
        halo: Pixels along each axis that programs which tile remove at both sides of the output.
    """
    axes: list[dict[str, Any]] = [
        {"type": "batch", "id": "batch"},
        {"type": "channel", "id": "channel", "channel_names": channels},
    ]
    smallest = map(min, MIN_PX[len(shape)], shape)
    for axis, least, own in zip("zyx"[-len(shape) :], smallest, halo, strict=True):
        facts: dict[str, Any] = {"size": {"min": max(least, 2 * own + 1), "step": 1}}
        if kind == "output":
            facts = {"size": {"tensor_id": "input", "axis_id": axis, "offset": 0}}
            facts |= {"halo": own} if own else {}
        axes.append({"type": "space", "id": axis, **facts})
    data: dict[str, Any] = {"type": "float32"}
    if kind == "output":
        data["range"] = [0.0, 1.0]
    return {
        "id": kind,
        "description": "pixels as in the file" if kind == "input" else "probability of each class",
        "axes": axes,
        "data": data,
        "test_tensor": {"source": f"test_{kind}.npy"},
        "sample_tensor": {"source": f"sample_{kind}.tif"},
    }


def _weights(folder: Path) -> dict[str, Any]:
    """Return the description of the weights, TorchScript first, from which ONNX descends."""
    return {
        "torchscript": {
            "source": TORCHSCRIPT,
            "sha256": checksum_of_file(folder / TORCHSCRIPT),
            "pytorch_version": torch.__version__.partition("+")[0],
        },
        "onnx": {
            "source": ONNX,
            "sha256": checksum_of_file(folder / ONNX),
            "opset_version": onnx_opset(folder / ONNX),
            "parent": "torchscript",
        },
    }


def zip_package(folder: Path, file: BinaryIO) -> None:
    """Write the files of a package to a zip file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as package:
        for path in sorted(folder.iterdir()):
            package.write(path, path.name)


def validate(folder: Path) -> str:
    """Validate the files of a package with the official library.

    Returns:
        Sentence with the result and the warnings.

    Raises:
        MissingPackageError: if bioimageio.spec is not installed.
        PlanError: if the validation fails.
    """
    library = require_package(LIBRARY, "bioimageio", "Target bioimageio")
    # From memory, because the library does not close the files that it reads.
    content = io.BytesIO()
    zip_package(folder, content)
    package = zipfile.ZipFile(content)
    summary = library.load_description(package).validation_summary
    if summary.status == "failed":
        problems = "\n".join(f"  {_describe(one)}" for one in summary.errors)
        raise PlanError(
            f"The validator of bioimage.io rejects the package:\n{problems}",
            code="package_invalid",
            hint="Correct the listed fields, for example the license (an SPDX identifier) or the "
            "names of the authors.",
        )
    found = [_describe(one) for one in summary.warnings]
    warnings = f" with {pluralize(len(found), 'warning')}: {'; '.join(found)}" if found else "."
    return f"Validated by bioimageio.spec {library.__version__}: passed{warnings}"


def _describe(entry: Any) -> str:
    """Return a problem that the validator found, with its place."""
    place = ".".join(map(str, entry.loc))
    text = shorten(str(entry.msg), MAX_PROBLEM, placeholder=" ...")
    return f"{place}: {text}" if place else text


def draw_cover(sample: Sample, plan: Plan) -> np.ndarray:
    """Draw the image on the left and the predicted classes on the right.

    Shapes:
        returns: (COVER_PX, 2 COVER_PX, 3) uint8.
    """
    image, classes = sample.image, sample.classes
    if classes.ndim == 3:
        plane = int((classes > 0).sum(axis=(1, 2)).argmax())
        image, classes = image[:, plane], classes[plane]
    space = plan.preprocessing.space
    colors = drawing_colors(class_styles(space.names, space.values, plan.encoding))
    table = np.array([(0, 0, 0), *colors[1:]], dtype=np.uint8)
    side = min(classes.shape)
    square = tuple(slice((size - side) // 2, (size - side) // 2 + side) for size in classes.shape)
    halves = [
        Image.fromarray(half).resize((COVER_PX, COVER_PX), resampling)
        for half, resampling in (
            (as_rgb(image[(slice(None), *square)]), Image.Resampling.BICUBIC),
            (table[classes[square]], Image.Resampling.NEAREST),
        )
    ]
    return np.concatenate([np.asarray(half) for half in halves], axis=1)


def _write_sample(path: Path, tensor: np.ndarray) -> None:
    """Write (C, *S) as a TIFF file with the axes of ImageJ: channels after planes."""
    kept = tensor if tensor.dtype in (np.uint8, np.uint16) else tensor.astype(np.float32)
    axes = "CYX"
    if kept.ndim == 4:
        kept, axes = np.moveaxis(kept, 0, 1), "ZCYX"
    tifffile.imwrite(path, kept, imagej=True, metadata={"axes": axes}, compression="zlib")


def _channel_names(count: int) -> list[str]:
    named = {1: ["intensity"], 3: ["red", "green", "blue"]}
    return named.get(count, [f"channel {number}" for number in range(1, count + 1)])


def _name_of(run: Path, plan: Plan) -> str:
    """Return a name of letters, digits, spaces and "_+-()", as the specification requires."""
    network = plan.recipe.network
    kind = f"{network.dims}D {'network' if network.is_custom else 'U-Net'}"
    own = re.sub(r"[^A-Za-z0-9_+\-() ]+", " ", real_path(run).name).strip() or "model"
    return f"{own[: MAX_NAME - 14]} - {kind}"


def _documentation(
    name: str,
    graph: SegmentationGraph,
    report: Report | None,
    publication: Publication,
    origin: Origin,
) -> str:
    """Return the text that the site shows about the model.

    Args:
        origin: What the run used the image of the sample for.
    """
    classes = ", ".join(map(escape_markdown, graph.class_names))
    axes = ", ".join("zyx"[-graph.dims :])
    count = len(graph.source.runs)
    lines = [f"# {escape_markdown(name)}", ""]
    if report is not None:
        lines += [escape_markdown(report.summary.verdict), ""]
    if publication.authors:
        lines += [f"Authors: {escape_markdown(', '.join(publication.authors))}", ""]
    lines += [
        "## How to use",
        "",
        f"- Input: {pluralize(graph.channels, 'channel')} with the pixel values of the file, of "
        f"any size along {axes}. Do not normalize them: the model does.",
        f"- Output: a value from 0 to 1 for each pixel and class, of the same size: {classes}.",
        f"- {describe_intensities(graph)}",
        *(f"- {line}" for line in describe_limits(graph)),
        *([f"- The output is the mean of {count} networks."] if count > 1 else []),
        *(
            f"- The postprocessing of `ushape predict` is not included. {escape_markdown(own)}."
            for own in graph.source.left_out
        ),
        *([] if origin == "test" else [f"- {SAMPLE_NOTES[origin]}"]),
        "",
    ]
    if report is None:
        lines += ["## Validation", "", "The model has not been evaluated.", ""]
        return "\n".join(lines)
    return "\n".join([*lines, card_text(report, {"Results": "Validation"})])
