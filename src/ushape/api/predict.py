"""Predict images: write their masks and the other requested outputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypedDict, Unpack

from ushape.api._named_images import find_images, without_own_outputs
from ushape.api._named_runs import describe_origin, run_folders
from ushape.api._prediction_text import (
    PredictionSummary,
    tell_last_call,
    tell_levels,
    tell_missing_neighbors,
    tell_notes,
    tell_skipped,
)
from ushape.api._remote import RemoteFiles
from ushape.config import setting_list
from ushape.console import Console
from ushape.data.inputs import Input
from ushape.data.preprocessing import by_group
from ushape.distributed.parts import Part, parse_part, part_of_task
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.inference.output import (
    ContourFormat,
    OutputConfig,
    ProbabilityFormat,
    TableColumns,
)
from ushape.inference.output.finished import masks_of_finished
from ushape.inference.output.manifest import has_log
from ushape.inference.output.writer import PredictionWriter, Written, open_log
from ushape.inference.predictor import (
    IN_MEMORY_BYTES,
    MAX_IN_MEMORY_BYTES,
    Predictor,
    PreparedImage,
)
from ushape.inference.prefetch import overlap
from ushape.inference.streaming import StreamedImage, StreamedPrediction
from ushape.interrupts import REPEAT, hint_after_interrupt
from ushape.io import ProbabilityType
from ushape.io.files import remove_leftovers
from ushape.io.lock import locked
from ushape.io.rle import Order
from ushape.planning.custom_code import allow_code
from ushape.planning.processor import leave_cores_to_others, threads_restored
from ushape.types import Prediction


class FilesBesideMask(TypedDict, total=False):
    """Additional files that `predict` writes for each image NAME, none by default."""

    overlay: bool
    """Also write NAME_overlay.png, the image with the outlines of the mask."""

    probabilities: ProbabilityFormat | None
    """Also write the class probabilities, as NAME.npz, NAME_probabilities.tif or .zarr."""

    probability_type: ProbabilityType | None
    """Data type of the stored probabilities p; uint8 stores round(255 p) (default: float32 for
    npz, otherwise uint8)."""

    contours: ContourFormat | None
    """Also write outlines, as NAME.geojson for QuPath, NAME_rois.zip for ImageJ, or
    NAME_coco.json."""

    instances: bool | None
    """Also write NAME_instances.tif, in which each object has its own number (default: if the model
    separates objects that are joined in its masks)."""

    table: bool
    """Also write NAME_objects.csv with a row for each object, and images.csv for all images."""

    columns: TableColumns
    """Columns of this table; full adds axes, eccentricity, orientation, solidity, and the mean,
    minimum and maximum intensity of each channel."""

    uncertainty: bool
    """Also write images.csv and NAME_uncertainty.png, 255 where all classes are equally likely."""

    dicom_seg: bool
    """Also write NAME_seg.dcm, a DICOM segmentation that refers to the DICOM image."""

    zarr_labels: bool
    """Also add the label images ushape_classes and ushape_objects to each OME-Zarr image, in its
    group `labels`; nothing else in the image is changed."""


@threads_restored()
def predict(
    run: Path | str | Sequence[Path | str],
    images: Sequence[Path | str] | Path | str,
    *,
    output: Path | str | None = None,
    rle: Path | str | None = None,
    rle_order: Order = "row",
    part: str | None = None,
    overwrite: bool = False,
    verify: bool = False,
    strict: bool = False,
    device: str = "auto",
    backend: str = "torch",
    settings: Iterable[str] = (),
    recipe: str | None = None,
    quiet: bool = False,
    **beside: Unpack[FilesBesideMask],
) -> list[Path] | list[str]:
    """Write one mask for each image.

    The masks have the same encoding as the training masks. Repeat an interrupted call to
    continue it.

    Args:
        run: Run or cross-validation folder; the probabilities of several runs are averaged.
        images: Image files, folders, patterns such as scans/*.tif, tables, or - for standard input;
            also URLs of files, folders and patterns, such as s3://bucket/images.
        output: Folder for the masks, or its URL; optional with --rle.
        rle: Also write run-length encoded masks to a .csv or .csv.gz file (img,rle_mask).
        rle_order: Order in which the pixels are counted: by row (Carvana) or by column.
        part: Predict one part of the images, such as 3/8. Several processes can write to the same
            folder, and the next call without this option merges their results. By default, each
            task of a SLURM, Kubernetes or AWS Batch array job predicts one part; 1/1 predicts all
            images.
        overwrite: Replace existing outputs.
        verify: Read existing outputs to check that they are unchanged; by default, their sizes are
            compared.
        strict: Stop at the first image that cannot be predicted.
        device: Device: auto, cpu, cuda or mps.
        backend: torch, compile, onnx, openvino, openvino-int8, or auto for the fastest.
        settings: Prediction setting as key=value, e.g. predict.tta=all_8 (repeatable).
        recipe: FILE.py:FUNCTION that defines the run's custom network or loss. The code runs only
            if you pass this option.
        quiet: Print nothing.
        **beside: Additional files to write for each image; see `FilesBesideMask`.

    Returns:
        Paths of the masks, of this call and of the one that it continues; their URLs if the output
        is at a URL.

    Raises:
        ConfigError: if there is no output, a setting does not apply to prediction, or the part does
            not exist or has no output folder.
        RunError: if a folder is not a run, or an output exists or is one of the images.
        DataError: if images could not be predicted; the others are written first.
    """
    own = part_of_task(os.environ) if part is None else parse_part(part)
    console = Console(quiet=quiet)
    with RemoteFiles(images, output, console) as files:
        config = OutputConfig(
            folder=files.output,
            submission=Path(rle) if rle else None,
            order=rle_order,
            overwrite=overwrite,
            verify=verify,
            part="" if own.is_all else f"{own.number}-of-{own.count}",
            **beside,
        )
        allow_code(recipe)
        folders, chosen = run_folders(run), setting_list(settings)
        if note := leave_cores_to_others(device):  # Before a backend starts its threads.
            console.say(note)
        predictor = Predictor.open(folders, device, backend=backend, settings=chosen)
        made_by = describe_origin(folders, predictor, chosen)
        if own.is_all and not predictor.reads_groups:
            done = _masks_if_finished(files.local_folders, config, predictor, made_by, console)
            if done is not None:
                return done
        inputs = without_own_outputs(files.find(predictor, find_images), config.folder)
        refused = {name: error for name, error in files.refused.items() if own.holds(name)}
        if not own.is_all:
            inputs = _take_part(inputs, own, predictor, console)
            if not inputs and not refused:
                tell_last_call(config, console)
                return []
        tell_missing_neighbors(predictor, inputs, console)
        lock = locked(config.folder, shared=not own.is_all) if config.folder else nullcontext()
        opened = PredictionWriter.open(config, predictor, inputs, made_by)
        with hint_after_interrupt(REPEAT), lock, opened as writer:
            files.start(writer, inputs)
            masks = _write_masks(inputs, writer, files, refused, console, strict=strict)
        return files.addresses_of(masks)


def _take_part(
    inputs: Sequence[Input], part: Part, predictor: Predictor, console: Console
) -> list[Input]:
    """Return the images of a part, and print how many there are.

    Images that are read together with others of their group stay together.
    """
    if predictor.reads_groups:
        own = [image for image in inputs if part.holds(image.case.group)]
    else:
        own = [image for image in inputs if part.holds(image.below.as_posix())]
    origin = f" ({part.origin})" if part.origin else ""
    console.say(
        f"Part {part}{origin}: {len(own)} of {pluralize(len(inputs), 'image')}. To predict all of "
        "them: --part 1/1."
    )
    return own


def _masks_if_finished(
    folders: Sequence[Path],
    config: OutputConfig,
    predictor: Predictor,
    made_by: Mapping[str, Any],
    console: Console,
) -> list[Path] | None:
    """Return the masks of all images of folders if an equal call has finished them.

    A folder with a million finished images is recognized by its names, sizes and times, without
    the listing of its images.

    Args:
        folders: Folders that the user specified; empty if anything else was specified.

    Returns:
        None if images have to be listed, because one of them may not be finished, or because of
        the requested outputs.
    """
    folder = config.folder
    if not folders or folder is None or not config.is_decided_by_log or not has_log(folder):
        return None
    with locked(folder):
        log = open_log(config, folder, predictor, made_by)
        names = masks_of_finished(folders, log)
        if names is None:
            return None
        writer = PredictionWriter(config, predictor, None, log)
        writer.refuse_links_to_elsewhere({name.rpartition("/")[0] for name in names})
        remove_leftovers(folder)
        log.merge()
    tell_notes(writer, console)
    tell_skipped(len(names), console)
    masks = [folder / name for name in names]
    with console.progress("Predicting") as on_progress:
        PredictionSummary(len(masks), on_progress, len(masks)).report(writer, masks, console)
    return masks


def _write_masks(
    inputs: Sequence[Input],
    writer: PredictionWriter,
    files: RemoteFiles,
    refused: Mapping[str, DataError],
    console: Console,
    *,
    strict: bool,
) -> list[Path]:
    """Predict each image that is not finished, and return the paths of all masks.

    Args:
        refused: Errors about images that cannot be read, by name.
    """
    if strict and refused:
        raise next(iter(refused.values()))
    tell_notes(writer, console)
    predictor = writer.predictor
    groups = by_group([image.case for image in inputs])
    max_bytes = MAX_IN_MEMORY_BYTES if writer.prefers_whole else IN_MEMORY_BYTES

    def preprocess(image: Input) -> PreparedImage | StreamedImage:
        files.fetch(image)
        writer.check(image)
        return predictor.preprocess_or_stream(image.case, groups[image.case.group], max_bytes)

    def compute(
        images: Sequence[PreparedImage | StreamedImage],
    ) -> Sequence[Prediction | StreamedPrediction]:
        prepared = [image for image in images if isinstance(image, PreparedImage)]
        streamed = [image for image in images if isinstance(image, StreamedImage)]
        if prepared:
            return predictor.predict(prepared)
        keep_distance = writer.keeps_distance
        return [predictor.stream(image, keep_distance=keep_distance) for image in streamed]

    def write(image: Input, prediction: Prediction | StreamedPrediction) -> Written:
        if isinstance(prediction, StreamedPrediction):
            written = writer.write_streamed(image, prediction)
        else:
            written = writer.write(image, prediction)
        files.upload(image)
        return written

    finished: list[Input] = []
    left: list[Input] = []
    for image in inputs:
        is_done = files.is_done(image) or writer.is_done(image)
        (finished if is_done else left).append(image)
    files.expect(left)
    tell_skipped(len(finished), console)
    tell_levels(predictor, left, console)
    with console.progress("Predicting") as on_progress:
        total = len(inputs) + len(refused)
        summary = PredictionSummary(total, on_progress, len(finished) + len(refused))
        summary.failures += [f"{name}: {error.message}" for name, error in refused.items()]
        for image, outcome in overlap(left, read=preprocess, compute=compute, write=write):
            files.release(image)
            if strict and isinstance(outcome, DataError):
                raise outcome
            summary.add(image, outcome)
    masks = [*filter(None, map(writer.mask_path, finished)), *summary.masks]
    if summary.failures:
        writer.write_images_table(inputs)
    summary.report(writer, masks, console)
    return masks
