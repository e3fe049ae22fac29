"""README of a standalone folder."""

from __future__ import annotations

from collections.abc import Sequence

from ushape._version import __version__
from ushape.errors import RunError
from ushape.evaluation.storage import FACTS, load_report
from ushape.export.graph import ExportOptions
from ushape.export.standalone.comparison import Comparison
from ushape.formatting import pluralize
from ushape.inference.predictor import Predictor
from ushape.planning.run import Run

PAGE = """\
# Segmentation model: {title}

`predict.py` writes a mask for each image. It needs Python 3.11 or later and the packages in
`requirements.txt`, but neither ushape nor PyTorch.

    pip install -r requirements.txt
    python predict.py image.png another.png -o masks

Folders are searched for images. Existing masks are replaced only with `--overwrite`. If an
image cannot be predicted, an error is reported, the others are predicted, and the exit code is 2.

## Images and masks

Images: {channels}, with the same kind of values as the training images, as PNG, JPEG, BMP, GIF,
WebP, portable pixmap (PPM) or TIFF. TIFF files must have a single page, values of 1, 8 or 16
bits or 32-bit signed integers or floating-point numbers, and no compression other than LZW, zlib,
PackBits or CCITT.

Masks: {masks}.

| class | mask value |
|---|---|
{classes}
{numbers}
## Training and scores

{training}

{scores}

## Agreement with ushape

{comparison}

The mask files are identical byte for byte, except for TIFF files, which have the same values and
data type, but a different compression and no image metadata.

## Contents

`network*.onnx` computes the raw scores of each class; `model.json` contains all settings.
`predict.py` reads and writes files (`image_files.py`), normalizes and resamples (`resampling.py`),
predicts tiles (`tiles.py`), cleans masks and separates objects (`objects.py`).

## License

The Python files are part of ushape {version}; `LICENSE` contains their terms (MIT). These terms do
not cover the network and its settings. {license}
"""

MASK_KINDS = {
    "values": "gray values of type {dtype}",
    "palette": "indices of a palette",
    "colors": "RGB colors",
    "alpha": "pictures of one color, whose opacity is the mask value",
    "one_hot": "numbers of the classes, of type {dtype}",
}
"""What masks contain, by the kind of their encoding."""


def describe(
    runs: Sequence[Run], predictor: Predictor, compared: Comparison, options: ExportOptions
) -> str:
    """Return the README in Markdown."""
    plan, space = predictor.plan, predictor.plan.preprocessing.space
    channels = plan.preprocessing.channels
    encoding, kind = plan.encoding, MASK_KINDS[plan.encoding.kind]
    numbers = (
        "\nObjects that touch are joined in the masks. `NAME_instances.tif` contains the number of "
        "each object.\n"
        if predictor.joins_objects
        else ""
    )
    rows = zip(space.names, map(space.show_value, space.values), strict=True)
    return PAGE.format(
        title=runs[0].folder.name,
        channels="gray" if channels == 1 else "RGB colors (gray images are repeated)",
        masks=f"`{encoding.suffix}` files with {kind.format(dtype=encoding.dtype)}",
        classes="\n".join(f"| {name} | {value} |" for name, value in rows),
        numbers=numbers,
        training="\n\n".join(_describe_training(run) for run in runs),
        scores="\n\n".join(_describe_scores(run) for run in runs),
        comparison=compared.text,
        version=__version__,
        license=_describe_license(options),
    )


def _describe_license(options: ExportOptions) -> str:
    authors = f" Authors: {', '.join(options.authors)}." if options.authors else ""
    if options.license is None:
        return f"Ask those who trained the network before you distribute it.{authors}"
    return f"Its license is {options.license}.{authors}"


def _describe_training(run: Run) -> str:
    try:
        splits = run.load_splits()
    except RunError:
        return f"{run.folder.name}: the list of its images is missing."
    parts = (
        f"{run.folder.name} was trained on {pluralize(len(splits.train), 'image')}, selected on "
        f"{len(splits.validation)} and tested on {len(splits.test)}."
    )
    return f"{parts} Training images: {', '.join(splits.train)}."


def _describe_scores(run: Run) -> str:
    if not (run.folder / FACTS).exists():
        return f"{run.folder.name} has not been evaluated."
    return f"Scores of {run.folder.name}: {load_report(run.folder).summary.verdict}"
