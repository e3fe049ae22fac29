"""Predict one large image in blocks, on one or many computers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ushape.api._named_runs import describe_origin, run_folders
from ushape.config import setting_list
from ushape.console import Console
from ushape.distributed.block_plan import plan_task, probabilities_path
from ushape.distributed.block_prediction import open_image
from ushape.distributed.block_separation import count_cut_parts
from ushape.distributed.block_task import (
    PREDICT,
    TASK_FILE,
    BlockTask,
    has_task,
    open_task,
    same_origin,
    task_folder,
)
from ushape.distributed.blocks import Execute, run_serially, run_task
from ushape.distributed.image_mark import mark_of_image
from ushape.distributed.parts import Part, parse_part, part_of_task
from ushape.distributed.scheduling import dask_executor
from ushape.errors import ConfigError, RunError
from ushape.formatting import pluralize, size_text
from ushape.inference.predictor import Predictor
from ushape.interrupts import REPEAT, hint_after_interrupt
from ushape.io.files import absolute_path, real_path, refuse_existing_output, remove_quietly
from ushape.io.streaming.ome_listing import list_label
from ushape.io.streaming.ome_pyramid import OmeVersion
from ushape.planning.custom_code import allow_code
from ushape.planning.processor import leave_cores_to_others, threads_restored


@threads_restored()
def predict_zarr(
    run: Path | str | Sequence[Path | str],
    image: Path | str,
    *,
    output: Path | str,
    probabilities: bool = False,
    objects: bool = False,
    part: str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    ome_version: OmeVersion = "0.5",
    chunk: int | None = None,
    shard: int | None = None,
    memory_gb: float = 0.5,
    overwrite: bool = False,
    device: str = "auto",
    backend: str = "torch",
    settings: Iterable[str] = (),
    recipe: str | None = None,
    quiet: bool = False,
) -> Path:
    """Write the mask of one large image in blocks, as OME-Zarr.

    The blocks can be shared by several processes: the parts of an array job, or the workers of
    Dask. Repeat an interrupted call to continue it.

    Args:
        run: Run or cross-validation folder; the probabilities of several runs are averaged.
        image: OME-Zarr image, Zarr array, tiled TIFF, or another file from which regions can be
            read.
        output: Mask to write; the name must end with .zarr.
        probabilities: Also write the class probabilities as uint8, as NAME_probabilities.zarr.
        objects: Also number the objects, in the label image OUTPUT/labels/objects.
        part: Part i/N of the blocks to predict (default: from the environment variables of an array
            job).
        scheduler: Address of a running Dask scheduler, such as tcp://host:8786.
        workers: Number of worker processes to start on this computer.
        ome_version: Version of OME-Zarr: 0.5 with shards, or 0.4.
        chunk: Length of a chunk along each axis in pixels (default: 1024, or 128 for volumes).
        shard: Length of a shard along each axis (default: 4096, or 256 for volumes; 0: none).
        memory_gb: Memory budget per block in GB, excluding the network; limits the block size.
        overwrite: Replace an existing output.
        device: Device: auto, cpu, cuda or mps.
        backend: torch, compile, onnx, openvino or openvino-int8.
        settings: Prediction setting as key=value, e.g. predict.tta=all_8 (repeatable).
        recipe: FILE.py:FUNCTION that defines the run's custom network or loss. The code runs only
            if you pass this option.
        quiet: Print nothing.

    Returns:
        Path of the mask.

    Raises:
        ConfigError: if a setting does not apply to prediction, or options conflict.
        RunError: if a folder is not a run, or the output exists or belongs to another prediction.
        DataError: if the image cannot be read in blocks, or the model needs whole images.
    """
    image, output = absolute_path(Path(image)), absolute_path(Path(output))
    own_part = _part_of(part, overwrite=overwrite)
    _check_output(image, output)
    allow_code(recipe)
    console, folders = Console(quiet=quiet), run_folders(run)
    if not (scheduler or workers) and (note := leave_cores_to_others(device)):
        console.say(note)
    predictor = Predictor.open(folders, device, backend=backend, settings=setting_list(settings))
    options: dict[str, Any] = {
        "probabilities": probabilities,
        "objects": objects,
        "ome_version": ome_version,
        "chunk": chunk,
        "shard": shard,
        "memory_gb": memory_gb,
    }
    if overwrite:
        _remove(output)
    task = _open_or_plan(
        folders,
        predictor,
        image,
        output,
        options,
        recipe=recipe,
        backend=backend,
        settings=setting_list(settings),
        overwrite=overwrite,
    )
    _create_images(task)
    del predictor  # Each process opens its own.
    with hint_after_interrupt(REPEAT), _executor(scheduler, workers, console) as execute:
        _compute(task, execute, device, own_part, console)
    return output


def _open_or_plan(
    folders: Sequence[Path],
    predictor: Predictor,
    image: Path,
    output: Path,
    options: dict[str, Any],
    *,
    recipe: str | None,
    backend: str,
    settings: Sequence[str],
    overwrite: bool,
) -> BlockTask:
    """Return the description of the prediction, which an earlier call or another part may have
    written.

    Args:
        options: Options that determine the output and its blocks, as for `plan_task`.

    Raises:
        RunError: if the output exists, or belongs to another prediction.
        DataError: if the image cannot be predicted in blocks.
    """
    folder = task_folder(output)
    with open_image(image, predictor) as bands:
        facts = {
            "path": str(image),
            "shape": bands.shape,
            "dtype": str(bands.dtype),
            "mark": mark_of_image(image),
        }
        origin = {
            **describe_origin(folders, predictor, settings),
            "image": facts,
            "options": options,
        }
        if not has_task(folder):
            refuse_existing_output(output, overwrite)
            planned = plan_task(
                predictor,
                bands,
                runs=[absolute_path(one) for one in folders],
                output=output,
                recipe=recipe,
                backend=backend,
                settings=settings,
                origin=origin,
                **options,
            )
            if overwrite:  # A block of the former prediction may have been written since then.
                _remove(output)
            planned.save()
    task = open_task(folder)
    if not same_origin(task, origin):
        raise RunError(
            f"{output} belongs to another prediction, with other runs, settings or options, or of "
            "another image, or the image has changed.",
            code="other_task",
            hint="Choose another output, or replace it with --overwrite (overwrite=True).",
        )
    return task


def _create_images(task: BlockTask) -> None:
    """Create the images that are written, unless they exist.

    Raises:
        RunError: if blocks are finished, but an image that contains them is missing.
    """
    for pyramid in (*task.pyramids, *task.intermediates):
        if not task.has_begun:
            pyramid.create()
        if not pyramid.exists:
            raise RunError(
                f"{pyramid.path} is missing or damaged, but according to {task.folder}, some "
                "of its blocks are finished.",
                code="output_missing",
                hint=f"To compute all blocks again, remove {task.folder} and what is left of the "
                "output, or add --overwrite (overwrite=True).",
            )
    if task.objects is not None:
        labels = task.objects.path.parent
        list_label(labels, task.objects.path.name, is_new=task.output.version == "0.5")


def _compute(task: BlockTask, execute: Execute, device: str, part: Part, console: Console) -> None:
    """Compute the blocks of a part, and print what was done and what is left."""
    console.say(
        f"{task.image.name}: {pluralize(task.count(PREDICT), 'block')} of "
        f"{size_text(task.block)} pixels."
    )
    if task.measured:
        console.say(f"Intensities of all blocks: measured once, from {task.measured}.")
    if not part.is_all:
        origin = f" ({part.origin})" if part.origin else ""
        console.say(
            f"This process computes part {part}{origin} of the blocks. To compute all of them, use "
            "--part 1/1."
        )
    with console.progress("Predicting") as on_progress:
        left = run_task(task, execute, device, part, on_progress)
    if left:
        console.say(
            f"This part is finished; {pluralize(left, 'block')} of other parts are left. The last "
            "part to end completes the image. If parts were stopped, repeat them or the whole "
            "array, or repeat the call once with --part 1/1."
        )
        return
    for pyramid in task.pyramids:
        console.say(f"{pyramid.path}: complete, with {pluralize(len(pyramid.factors), 'level')}.")
    if cut := count_cut_parts(task):
        console.say(
            f"Warning: {pluralize(cut, 'group')} of touching objects did not fit into a window of "
            f"{task.window_px} pixels; objects of them that cross the border of a block were cut "
            "there. To keep them whole, predict to another output with a larger --memory-gb."
        )


@contextmanager
def _executor(scheduler: str | None, workers: int | None, console: Console) -> Iterator[Execute]:
    """Yield the function that computes blocks, in this process or on Dask workers."""
    if scheduler is None and workers is None:
        yield run_serially
        return
    with dask_executor(scheduler=scheduler, workers=workers, say=console.say) as execute:
        yield execute


def _part_of(text: str | None, *, overwrite: bool) -> Part:
    """Return the part specified by the user or by an array job.

    Raises:
        ConfigError: if a part would remove the blocks of the others.
    """
    part = parse_part(text) if text is not None else part_of_task(os.environ)
    if overwrite and not part.is_all:
        raise ConfigError(
            f"Part {part} cannot replace the output, because other parts write to it.",
            code="part_overwrites",
            hint="Before starting the parts, remove the output and the folder next to it whose "
            "name ends with .blocks, and omit --overwrite.",
        )
    return part


def _check_output(image: Path, output: Path) -> None:
    """Check the name and the location of the output.

    Raises:
        ConfigError: if it does not end with .zarr, or is the image or within it.
    """
    if output.suffix != ".zarr":
        raise ConfigError(
            f"{output} does not end with .zarr.",
            code="unwritable_format",
            hint="Blocks are written as OME-Zarr: choose a name such as mask.zarr.",
        )
    if real_path(output).is_relative_to(real_path(image)):
        raise ConfigError(
            f"{output} is the image, or lies within it.",
            code="output_is_input",
            hint="Choose another location with -o.",
        )


def _remove(output: Path) -> None:
    """Remove an earlier output and the description of its prediction.

    The description is removed first: blocks that are still computed elsewhere write nothing more.
    """
    folder = task_folder(output)
    for path in (folder / TASK_FILE, folder, output, probabilities_path(output)):
        remove_quietly(path)
