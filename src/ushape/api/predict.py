"""Predict images: write their masks and the other requested outputs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

from ushape import io
from ushape.api._remote import RemoteFiles
from ushape.config import setting_list
from ushape.console import Console, OnProgress
from ushape.data.inputs import Input, find_inputs, group_inputs
from ushape.data.preprocessing import by_group
from ushape.data.slices import describe_missing
from ushape.distributed.parts import Part, parse_part, part_of_task
from ushape.errors import REPEAT, ConfigError, DataError, hint_after_interrupt
from ushape.formatting import pluralize
from ushape.inference.output import (
    ContourFormat,
    OutputConfig,
    ProbabilityFormat,
    TableColumns,
)
from ushape.inference.output.finished import masks_of_finished
from ushape.inference.output.manifest import has_log
from ushape.inference.output.writer import IMAGES_TABLE, PredictionWriter, Written, open_log
from ushape.inference.predictor import (
    IN_MEMORY_BYTES,
    MAX_IN_MEMORY_BYTES,
    Predictor,
    PreparedImage,
)
from ushape.inference.prefetch import overlap
from ushape.inference.streaming import StreamedImage, StreamedPrediction
from ushape.instances.contours import class_styles, drawing_colors
from ushape.io import ProbabilityType
from ushape.io.files import real_path, remove_leftovers
from ushape.io.listing import RealPaths
from ushape.io.lock import locked
from ushape.io.rle import Order
from ushape.io.streaming.slides import describe_slide
from ushape.labels.colors import name_color
from ushape.planning.custom_code import allow_code
from ushape.planning.plan import Plan
from ushape.planning.processor import leave_cores_to_others, threads_restored
from ushape.planning.run import Run
from ushape.types import Case, Pixels, Prediction, files_of


class FilesBesideMask(TypedDict, total=False):
    """Files that `predict` writes for each image NAME beside its mask, none by default."""

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
    """Also write NAME_instances.tif, in which the pixels of each object have its number (default:
    if the model separates objects that its masks join)."""

    table: bool
    """Also write NAME_objects.csv with a row for each object, and images.csv for all images."""

    columns: TableColumns
    """Columns of this table; full adds axes, eccentricity, orientation, solidity, and the mean,
    lowest and highest intensity of each channel."""

    uncertainty: bool
    """Also write NAME_uncertainty.png, 255 where all classes are equally likely, and images.csv."""

    dicom_seg: bool
    """Also write NAME_seg.dcm, a DICOM segmentation that refers to the DICOM image."""

    zarr_labels: bool
    """Also add the label images ushape_classes and ushape_objects to each OME-Zarr image, in its
    group labels; nothing else of the image is changed."""


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
        part: Predict one of several parts of the images, such as 3/8; several processes can share
            a folder, and the next call without it gathers the results. By default, the tasks of an
            array job of SLURM, Kubernetes or AWS Batch are the parts; 1/1 predicts all images.
        overwrite: Replace existing outputs.
        verify: Read existing outputs to find out whether they are unchanged; by default, their
            sizes are compared.
        strict: Stop at the first image that cannot be predicted.
        device: Device: auto, cpu, cuda or mps.
        backend: torch, compile, onnx, openvino, openvino-int8, or auto for the fastest.
        settings: Prediction setting as key=value, e.g. predict.tta=all_8 (repeatable).
        recipe: FILE.py:FUNCTION that defines the run's own network or loss; executed only if given.
        quiet: Print nothing.
        **beside: Further files to write for each image; see `FilesBesideMask`.

    Returns:
        Paths of the masks, of this call and of the one that it continues; their URLs if the output
        is at a URL.

    Raises:
        ConfigError: if there is no output, a setting is not one of prediction, or the part does not
            exist or has no output folder.
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
        inputs = _without_own_outputs(files.find(predictor, find_images), config.folder)
        refused = {name: error for name, error in files.refused.items() if own.holds(name)}
        if not own.is_all:
            inputs = _take_part(inputs, own, predictor, console)
            if not inputs and not refused:
                _tell_last_call(config, console)
                return []
        _tell_missing_neighbors(predictor, inputs, console)
        lock = locked(config.folder, shared=not own.is_all) if config.folder else nullcontext()
        opened = PredictionWriter.open(config, predictor, inputs, made_by)
        with hint_after_interrupt(REPEAT), lock, opened as writer:
            files.start(writer, inputs)
            masks = _write_masks(predictor, inputs, writer, console, files, refused, strict=strict)
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


def _tell_missing_neighbors(
    predictor: Predictor, inputs: Sequence[Input], console: Console
) -> None:
    """Print for how many images the nearest slice takes the place of a neighbor."""
    if not any(member.plan.preprocessing.needs_neighbors for member in predictor.members):
        return
    groups = by_group([image.case for image in inputs])
    if line := describe_missing(list(groups.values())):
        console.say(f"{line} To give the model all neighbors, name the folder of the stack.")


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
        folders: Named folders; none if something else is named.

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
    _tell_notes(writer, console)
    _tell_skipped(len(names), console)
    masks = [folder / name for name in names]
    with console.progress("Predicting") as on_progress:
        _Summary(len(masks), on_progress, len(masks)).report(writer, masks, console)
    return masks


def _tell_notes(writer: PredictionWriter, console: Console) -> None:
    """Print what to know about the predictions and outputs."""
    for line in writer.predictor.notes:
        console.say(line)
    if writer.adds_instances:
        console.say(
            "Objects: the masks join those that touch, as the masks of the training do. Their "
            "numbers are written beside the masks, as NAME_instances. To leave them out: "
            "--no-instances."
        )


def _tell_skipped(count: int, console: Console) -> None:
    """Print how many images are finished, if there are any."""
    if count:
        console.say(f"Skipping {pluralize(count, 'image')} finished by an earlier call.")


def _write_masks(
    predictor: Predictor,
    inputs: Sequence[Input],
    writer: PredictionWriter,
    console: Console,
    files: RemoteFiles,
    refused: Mapping[str, DataError],
    *,
    strict: bool,
) -> list[Path]:
    """Predict each image that is not finished, and return the paths of all masks.

    Args:
        refused: Errors about images that cannot be read, by name.
    """
    if strict and refused:
        raise next(iter(refused.values()))
    _tell_notes(writer, console)
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
    _tell_skipped(len(finished), console)
    _tell_levels(predictor, left, console)
    with console.progress("Predicting") as on_progress:
        total = len(inputs) + len(refused)
        summary = _Summary(total, on_progress, len(finished) + len(refused))
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


def _tell_levels(predictor: Predictor, inputs: Sequence[Input], console: Console) -> None:
    """Print which level of the slides is read for the resolution of the prediction."""
    found: dict[str, list[Path]] = {}
    for path in (image.case.image for image in inputs):
        if predictor.is_slide(path):
            with suppress(DataError):  # It is raised again when the slide is predicted.
                found.setdefault(describe_slide(path, predictor.slide_mpp), []).append(path)
    for text, paths in found.items():
        console.say(f"{_count_and_name(paths)}: {text} (predict.slide_mpp).")


@dataclass
class _Summary:
    """Progress and results of a call."""

    total: int
    on_progress: OnProgress
    done: int = 0
    pixels: int = 0
    started: float = field(default_factory=time.monotonic)
    masks: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    with_missing: list[Path] = field(default_factory=list)
    """Images with NaN or infinite pixels."""

    without_instances: list[Path] = field(default_factory=list)
    """Images too large for numbers of objects, which are written for the others."""

    with_cuts: list[Path] = field(default_factory=list)
    """Images whose objects were cut because memory was short."""

    gray: list[Path] = field(default_factory=list)
    """Gray images that were predicted by a network for color images."""

    def add(self, image: Input, outcome: Written | DataError) -> None:
        self.done += 1
        if isinstance(outcome, DataError):
            name, message = str(image.case.image), outcome.message
            self.failures.append(message if name in message else f"{name}: {message}")
        else:
            self.masks += [outcome.path] if outcome.path else []
            self.pixels += outcome.pixels
            self.with_missing += [image.case.image] if outcome.missing_px else []
            self.gray += [image.case.image] if outcome.is_gray else []
            self.without_instances += [image.case.image] if outcome.lacks_instances else []
            self.with_cuts += [image.case.image] if outcome.cut_parts else []
        speed = self.pixels / 1e6 / (time.monotonic() - self.started)
        self.on_progress(self.done, self.total, f"{speed:.1f} Mpixel/s")

    def report(self, writer: PredictionWriter, masks: Sequence[Path], console: Console) -> None:
        """Print what was written.

        Raises:
            DataError: if there were failures.
        """
        config = writer.config
        if self.with_missing:
            console.say(
                "NaN or infinite pixels were replaced by average or extreme values in "
                f"{_count_and_name(self.with_missing)}."
            )
        if self.without_instances:
            console.say(
                "Warning: for images larger than memory, the numbers of objects were left out, so "
                "that objects that touch are joined, in "
                f"{_count_and_name(self.without_instances)}. OME-Zarr images can have them with "
                "--zarr-labels; cut other images into parts."
            )
        if self.with_cuts:
            console.say(
                "Warning: objects that extend over more rows than fit into half of the free "
                "memory were cut into parts with their own numbers in "
                f"{_count_and_name(self.with_cuts)}. To keep them whole, close other programs, or "
                "use a machine with more memory."
            )
        if self.gray:
            console.say(
                "Warning: the model expects color images. Gray values were used for all three "
                f"channels in {_count_and_name(self.gray)}."
            )
        if config.folder is not None:
            console.say(f"{pluralize(len(masks), 'mask')} in {config.folder}")
        if config.overlay and len(writer.predictor.plan.preprocessing.space.values) > 2:
            console.say(f"Colors of the overlays: {_describe_colors(writer.predictor.plan)}.")
        if self.failures:
            listed = "\n".join(f"  {failure}" for failure in self.failures)
            others = "The other masks were written. " if masks else ""
            rows = " Run lengths are written once all images are done." if config.submission else ""
            raise DataError(
                f"{len(self.failures)} of {self.total} images could not be predicted:\n{listed}",
                code="images_failed",
                hint=f"{others}Fix or remove these images, and repeat the call.{rows}",
            )
        if config.part:
            _tell_last_call(config, console)
        elif config.submission is not None:
            console.say(f"{pluralize(self.total, 'row')} in {config.submission}")


def _tell_last_call(config: OutputConfig, console: Console) -> None:
    """Print what to do after all parts."""
    files = [IMAGES_TABLE] if config.table or config.uncertainty else []
    files += [str(config.submission)] if config.submission else []
    also = f", and write {' and '.join(files)}" if files else ""
    console.say(
        "After all parts, repeat the command once with --part 1/1: it will predict what is "
        f"missing, and merge the logs of the parts{also}."
    )


def _describe_colors(plan: Plan) -> str:
    """Return the name of each foreground class with its color in pictures."""
    space = plan.preprocessing.space
    colors = drawing_colors(class_styles(space.names, space.values, plan.encoding))
    codes = [red << 16 | green << 8 | blue for red, green, blue in colors]
    return ", ".join(
        f"{name} = {name_color(code)}"
        for name, code in list(zip(space.names, codes, strict=True))[1:]
    )


def _count_and_name(images: Sequence[Path]) -> str:
    more = ", ..." if len(images) > 3 else ""
    return f"{pluralize(len(images), 'image')}: {', '.join(map(str, images[:3]))}{more}"


def find_images(
    predictor: Predictor,
    images: Iterable[Path | str] | Path | str,
    on_note: Callable[[str], None] = lambda note: None,
    read: Callable[[Path], Pixels] = io.read,
) -> list[Input]:
    """Return the images that are named, as the predictor reads them.

    Args:
        on_note: Receives a line about masks that were left out, one about volumes in time, and one
            about the groups in which images are preprocessed.
        read: Function that reads an image, to count its channels.

    Raises:
        DataError: if a name is not a path, or `find_inputs` raises it.
        MissingPackageError: if a package that reads one of the files is not installed.
    """
    named = [images] if isinstance(images, (str, Path)) else list(images)
    other = [one for one in named if not isinstance(one, (str, Path))]
    if other:
        raise DataError(
            f"An object of type {type(other[0]).__name__} is among the paths of the images.",
            code="not_a_path",
            hint="Predict arrays one at a time: ushape.load(RUN).predict(array).",
        )
    plan = predictor.plan
    channels, dims = plan.preprocessing.channels, plan.image_dims
    paths = [Path(path) for path in named]
    found = find_inputs(paths, channels=channels, dims=dims, on_note=on_note, read=read)
    io.check_packages(path for image in found for path in files_of(image.case))
    plans = [member.plan for member in predictor.members]
    if grouping := next((own for own in plans if own.preprocessing.needs_group), None):
        are_single = grouping.group_noun == "images"
        option = grouping.recipe.groups or grouping.group_rule
        found, rule = group_inputs(found, option, are_single=are_single)
        on_note(_describe_groups([one.case for one in found], rule))
    return found


def _describe_groups(cases: Sequence[Case], rule: str) -> str:
    """Return the rule of the groups, the first three of them, and how to state others."""
    groups = by_group(cases)
    first = [f"{name} ({pluralize(len(own), 'image')})" for name, own in groups.items()][:3]
    more = f" and {len(groups) - 3} more" if len(groups) > 3 else ""
    return (
        f"The images are preprocessed in {pluralize(len(groups), 'group')}, {rule}: "
        f"{', '.join(first)}{more}. To state other groups, name a table with the columns image and "
        "group."
    )


def run_folders(run: Path | str | Sequence[Path | str]) -> list[Path]:
    """Return the folders of the runs; the folder of a cross-validation stands for its folds.

    Raises:
        ConfigError: if a run is named twice, or none is named.
    """
    named = [run] if isinstance(run, (str, Path)) else run
    if not isinstance(named, Sequence):
        raise ConfigError(
            f"A run cannot be of type {type(run).__name__}.",
            code="no_run_named",
            hint="Name the folder that `ushape train` printed.",
        )
    found: list[Path] = []
    for folder in map(Path, named):
        folds = sorted(path for path in folder.glob("fold-*") if Run(path).plan_path.exists())
        found += [folder] if Run(folder).plan_path.exists() or not folds else folds
    twice = [path for path in found if found.count(path) > 1]
    if twice:
        raise ConfigError(
            f"The run {twice[0]} is named twice.",
            code="run_named_twice",
            hint="Name each run once.",
        )
    if not found:
        raise ConfigError(
            "No run was given.",
            code="no_run_named",
            hint="Name the folder that `ushape train` printed.",
        )
    return found


def _without_own_outputs(inputs: Sequence[Input], folder: Path | None) -> list[Input]:
    """Leave out the masks of an earlier call, if the output folder is below the input folder."""
    if folder is None:
        return list(inputs)
    place, paths = real_path(folder), RealPaths()
    start = str(place).rstrip(os.sep) + os.sep
    others = [one for one in inputs if not paths.of(one.case.image).startswith(start)]
    return others or list(inputs)  # All of them are in that folder, so they were named on purpose.


def describe_origin(
    folders: Sequence[Path], predictor: Predictor, settings: Iterable[str]
) -> dict[str, Any]:
    """Return what the outputs depend on, for the log of finished images."""
    return {
        "weights": [_run_digest(Run(folder)) for folder in folders],
        "backend": predictor.backends,
        "settings": sorted(settings),
    }


def _run_digest(run: Run) -> str:
    """Return a checksum of what decides a prediction: weights, plan and rule."""
    digest = hashlib.sha256()
    for path in (run.weights_path, run.plan_path, run.tuning_path):
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
