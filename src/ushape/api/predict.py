"""The verb `predict`: masks, and what was asked for beside them, for many images."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ushape import io
from ushape.console import Console
from ushape.data.discovery import Input, find_inputs
from ushape.data.preprocessing import by_group
from ushape.errors import ConfigError, DataError
from ushape.formatting import pluralize
from ushape.inference.output import ContourFormat, OutputConfig, ProbabilityFormat
from ushape.inference.output.writer import Outputs
from ushape.inference.predictor import Predictor
from ushape.inference.prefetch import AHEAD, map_ahead
from ushape.inference.streaming import count_missing
from ushape.io import ProbabilityType
from ushape.io.rle import Order
from ushape.io.streaming import open_bands
from ushape.planning.custom_code import allow_code
from ushape.planning.run import Run
from ushape.types import Case, Prediction

WHOLE_BYTES = 1 << 28
"""An image whose prediction takes more memory is predicted in bands, where its outputs allow."""

MAX_BYTES = 1 << 30
"""And beyond this, in bands or not at all."""

AHEAD_PX = 1 << 23
"""Pixels of the images that are read ahead, and as many that wait to be written."""


def predict(
    run: Path | str | Sequence[Path | str],
    images: Sequence[Path | str] | Path | str,
    *,
    output: Path | str | None = None,
    overlay: bool = False,
    probabilities: ProbabilityFormat | None = None,
    probability_type: ProbabilityType | None = None,
    contours: ContourFormat | None = None,
    instances: bool = False,
    table: bool = False,
    uncertainty: bool = False,
    rle: Path | str | None = None,
    rle_order: Order = "row",
    overwrite: bool = False,
    strict: bool = False,
    device: str = "auto",
    backend: str = "torch",
    settings: Iterable[str] = (),
    recipe: str | None = None,
) -> list[Path]:
    """Writes one mask per image, at the image's size, in the user's own encoding.

    The same call, after a kill, goes on where it ended. The options from `overlay` to
    `uncertainty` are described at `outputs.OutputConfig`.

    Args:
        run: A run's folder, that of a cross-validation, or several: the mean of their
            probabilities decides.
        images: Files; folders, whose sub-folders are kept below the output; patterns such as
            scans/*.tif; tables with a column image; - for names on standard input.
        output: Folder for the masks; may be left out with `rle`.
        rle: A .csv or .csv.gz of run lengths, img,rle_mask, as Kaggle's Carvana takes it.
        rle_order: Pixels counted row by row or column by column.
        overwrite: Replace outputs that exist.
        strict: Stop at the first image that cannot be predicted.
        backend: torch, or one of `prediction.backends.BACKENDS` that is installed.
        settings: `predict.key=value` for each value of the plan to change.
        recipe: Python file and function, FILE.py:FUNCTION, of a run with its own network or loss;
            it is executed only if it is named here.

    Returns:
        The masks' paths, of this call and of the one that it continues.

    Raises:
        ConfigError: nowhere to write to; a setting that is not one of prediction.
        RunError: not a run; an output exists, or is one of the images.
        DataError: images that could not be predicted; the others are written first.
    """
    config = OutputConfig(
        folder=Path(output) if output else None,
        overlay=overlay,
        probabilities=probabilities,
        probability_type=probability_type,
        contours=contours,
        instances=instances,
        table=table,
        uncertainty=uncertainty,
        submission=Path(rle) if rle else None,
        order=rle_order,
        overwrite=overwrite,
    )
    allow_code(recipe)
    folders = run_folders(run)
    settings = (settings,) if isinstance(settings, str) else tuple(settings)
    predictor = Predictor.open(folders, device, backend=backend, settings=settings)
    found = _without_own_outputs(inputs_for(predictor, images), config.folder)
    made_by = {
        "weights": [_digest_of(Run(folder)) for folder in folders],
        "backend": predictor.backends,
        "settings": sorted(settings),
    }
    console = Console()
    for line in predictor.notes:
        console.say(line)
    with Outputs.open(config, predictor, found, made_by) as outputs:
        return _predict_all(predictor, found, outputs, console, strict=strict)


def inputs_for(predictor: Predictor, images: Iterable[Path | str] | Path | str) -> list[Input]:
    """The images that are named, as the predictor reads them; errors as `find_inputs`."""
    named = [images] if isinstance(images, (str, Path)) else list(images)
    strange = [one for one in named if not isinstance(one, (str, Path))]
    if strange:
        raise DataError(
            f"An image of type {type(strange[0]).__name__} among the names of files.",
            hint="Arrays are predicted one by one: model.predict(array).",
        )
    plan = predictor.plan
    channels, dims = plan.preprocessing.channels, plan.recipe.network.dims
    return find_inputs([Path(path) for path in named], channels=channels, dims=dims)


def _without_own_outputs(found: Sequence[Input], folder: Path | None) -> list[Input]:
    """The masks of an earlier call are no images, where they lie below what was named."""
    if folder is None:
        return list(found)
    place = folder.resolve()
    others = [one for one in found if not one.case.image.resolve().is_relative_to(place)]
    return others or list(found)  # All of them lie there: they were named.


def run_folders(run: Path | str | Sequence[Path | str]) -> list[Path]:
    """The runs that are meant: a cross-validation's folder stands for its folds."""
    named = [run] if isinstance(run, (str, Path)) else run
    found: list[Path] = []
    for folder in map(Path, named):
        folds = sorted(path for path in folder.glob("fold-*") if Run(path).plan_path.exists())
        found += [folder] if Run(folder).plan_path.exists() or not folds else folds
    twice = [path for path in found if found.count(path) > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is named twice.", hint="Each run counts once.")
    if not found:
        raise ConfigError("No run is named.", hint="Name the folder that `ushape train` printed.")
    return found


def _predict_all(
    predictor: Predictor,
    found: Sequence[Input],
    outputs: Outputs,
    console: Console,
    *,
    strict: bool,
) -> list[Path]:
    written: list[Path] = []
    failures: list[str] = []
    gappy: list[Path] = []
    skipped = [one for one in found if outputs.is_done(one)]
    if skipped:
        console.say(f"{pluralize(len(skipped), 'image')} finished by an earlier call.")
    with console.progress("Predicting") as on_progress:
        started, pixels = time.monotonic(), 0
        results = _results(predictor, found, outputs)
        for done, outcome in enumerate(results, start=len(skipped) + 1):
            if isinstance(outcome, DataError):
                if strict:
                    raise outcome
                failures.append(outcome.message)
            else:
                written += [outcome.path] if outcome.path else []
                pixels += outcome.pixels
                gappy += [outcome.input.case.image] if outcome.missing_px else []
            speed = pixels / 1e6 / (time.monotonic() - started)
            on_progress(done, len(found), f"{speed:.1f} Mpixel/s")
    if gappy:
        console.say(
            f"{pluralize(len(gappy), 'image')} with NaN or infinite pixels, predicted as if these "
            f"were average or extreme: {', '.join(map(str, gappy[:3]))}"
            f"{', ...' if len(gappy) > 3 else ''}"
        )
    written = [*filter(None, (outputs.mask_path(one) for one in skipped)), *written]
    if outputs.config.folder is not None:
        console.say(f"{pluralize(len(written), 'mask')} in {outputs.config.folder}")
    if failures:
        outputs.write_images(found)
        listed = "\n".join(f"  {failure}" for failure in failures)
        others = "The other masks are written. " if written else ""
        rows = " The run lengths wait until all images are there." if outputs.submission else ""
        raise DataError(
            f"{len(failures)} of {len(found)} images could not be predicted:\n{listed}",
            hint=f"{others}Mend or remove these, and repeat the call.{rows}",
        )
    if outputs.config.submission is not None:
        console.say(f"{pluralize(len(found), 'row')} in {outputs.config.submission}")
    return written


@dataclass(frozen=True)
class _Done:
    """An image whose outputs are written."""

    input: Input

    path: Path | None
    """Of the mask, if one was asked for."""

    pixels: int
    missing_px: int = 0
    """Of the image: NaN or infinite."""


def _results(
    predictor: Predictor, found: Sequence[Input], outputs: Outputs
) -> Iterator[_Done | DataError]:
    """Each image that is not done yet, or why there is nothing of it."""
    groups = by_group([one.case for one in found])
    left = [one for one in found if not outputs.is_done(one)]
    small: list[Input] = []
    for one in left:
        if not _is_large(predictor, one.case, outputs.config):
            small.append(one)
            continue
        yield from _predict_small(predictor, small, groups, outputs)
        small = []
        try:
            with open_bands(one.case.image) as bands:
                path, pixels = outputs.write_bands(one, bands), math.prod(bands.shape[1:])
                yield _Done(one, path, pixels, count_missing(bands))
        except DataError as error:
            yield error
    yield from _predict_small(predictor, small, groups, outputs)


def _predict_small(
    predictor: Predictor,
    small: Sequence[Input],
    groups: dict[str, list[Case]],
    outputs: Outputs,
) -> Iterator[_Done | DataError]:
    """Reading, network and writing at the same time."""

    def write(pair: tuple[Input, Prediction | DataError]) -> _Done:
        one, prediction = pair
        if isinstance(prediction, DataError):
            raise prediction
        path = outputs.write(prediction, one)
        return _Done(one, path, prediction.classes.size, prediction.missing_px)

    requests = ((one, one.case, groups[one.case.group]) for one in small)
    ahead = _ahead(small)
    predicted = predictor.predict_many(requests, ahead=ahead)
    # One thread writes: rows of a submission, and lines of the journal, in order.
    for _, outcome in map_ahead(write, predicted, threads=1, ahead=ahead):
        yield outcome


def _ahead(some: Sequence[Input]) -> int:
    """How many images may be in memory beside the one that the network sees."""
    try:
        pixels = math.prod(io.read_size(some[0].case.image)) if some else 1
    except DataError:
        pixels = 1
    return max(1, min(AHEAD, AHEAD_PX // pixels))


def _is_large(predictor: Predictor, case: Case, config: OutputConfig) -> bool:
    """Better predicted in bands."""
    if case.channels or not io.is_read_in_bands(case.image):
        return False
    try:
        with open_bands(case.image) as bands:
            shape, size = bands.shape, bands.dtype.itemsize
    except DataError:
        return False  # The reader says what is wrong.
    outputs = 3 * predictor.plan.preprocessing.space.channels
    needed = math.prod(shape[1:]) * (shape[0] * (size + 4) + 4 * outputs)
    return needed > (MAX_BYTES if config.only_whole else WHOLE_BYTES)


def _digest_of(run: Run) -> str:
    """Of what decides a prediction: weights, plan, rule."""
    digest = hashlib.sha256()
    for path in (run.weights_path, run.plan_path, run.tuning_path):
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
