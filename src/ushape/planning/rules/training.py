"""Training and prediction: split, loss, learning rate, hardware, batch and tiles."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import torch

from ushape.config import AUTO, Auto, is_custom, resolved
from ushape.data.cache import KEEP_SHARE
from ushape.errors import PlanError
from ushape.formatting import memory_text, pluralize, size_text
from ushape.models import memory_estimate
from ushape.planning.loading import loading_processes
from ushape.planning.processor import choose_threads, describe_sharing
from ushape.planning.recipe import Recipe, Tta
from ushape.planning.rules.result import RuleResult, Situation, change
from ushape.planning.timing import Format, formats_of, with_format

MEMORY_SHARE = 0.7
"""Share of the memory that a step is planned to use; the estimate is not an upper bound."""

OVERLAP_PX = 64
"""Overlap of neighboring tiles; predictions within half of it of a tile's edge are not used."""

MIN_TEST_GROUPS = 10
"""Number of test groups below which the confidence interval is unreliable."""

USUAL_FOLDS = 5


def choose_split(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Describe the split that was made, and how many folds would test on every group."""
    data, split, folds = situation.data, situation.split, recipe.split.folds
    tested = pluralize(split.test_groups, "group")
    similar = f", in which neighbors are {data.redundancy:.0%} similar" if data.redundancy else ""
    fact = f"{split.images} images in {pluralize(split.groups, 'group')}{similar}"
    if folds is not None:
        text = f"Scores: fold {recipe.split.fold + 1} of {folds}, tested on {tested}."
        alternative = "one split"
    elif not split.test_groups:
        text, alternative = "Scores: none, because no image is kept for testing.", "a test set"
    else:
        more = min(USUAL_FOLDS, split.groups)
        text = f"Scores: one split, tested on {tested}"
        alternative = f"ushape cross-validate --folds {more}"
        if split.test_groups < MIN_TEST_GROUPS and split.kind != "stack":
            text += f"; `{alternative}` would test on all {split.groups}, in {more} times the time"
        text += "."
    return recipe, RuleResult(
        text=text,
        fact=fact,
        alternative=alternative,
        source="Cross-validation tests on every group, but takes as many times longer as it has "
        "folds, so it is only done on request. Slices that look like their neighbors add little "
        "information, so groups are counted instead of images.",
    )


def choose_prediction(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose large tiles with a small overlap, unless the norm layers depend on the tile."""
    predict = recipe.predict
    predict.check_dims(recipe.network.dims)
    tile = predict.tile_shape
    patch = resolved(recipe.sampling.patch_shape)
    if tile == AUTO:
        in_plane = 1024 if len(patch) == 2 else 160
        limit = in_plane if recipe.network.norm in ("none", "batch") else 0
        tile = tuple(max(size, limit) for size in patch)
    overlap = predict.tiling.overlap_fraction
    if overlap == AUTO:
        overlap = round(min(0.25, OVERLAP_PX / min(tile)), 4)
    tiling = replace(predict.tiling, overlap_fraction=overlap)
    tta, mirror_axes = _choose_tta(recipe)
    recipe = change(
        recipe, "predict", tile_shape=tile, tta=tta, mirror_axes=mirror_axes, tiling=tiling
    )
    versions = {
        "none": "without test-time augmentation",
        AUTO: "mirrored versions are averaged if validation cases clearly improve by it",
        "validated": "mirrored versions are averaged if validation cases clearly improve by it",
    }.get(tta, f"test-time augmentation {tta}")
    count = 2 ** len(mirror_axes)
    return recipe, RuleResult(
        text=f"Prediction: tiles of about {size_text(tile)} pixels with an overlap of "
        f"{overlap:.0%}, {versions}.",
        fact=f"{recipe.network.norm} norm",
        alternative=f"predict.tta={'mirrored' if tta == 'none' else 'none'}. Averaging {count} "
        f"mirrored versions takes about {count} times as long.",
        source="For a large image, most of the time is spent on pixels that are computed twice, so "
        "tiles are large and overlap by 64 pixels (benchmarks/README.md, Prediction speed). With "
        "instance or group norm, which depend on the tile, tiles are about as large as patches. "
        "Only the axes that are mirrored in training are mirrored in prediction.",
    )


def _choose_tta(recipe: Recipe) -> tuple[Tta | Auto, tuple[int, ...]]:
    """Return the test-time augmentation, and the axes that it may mirror.

    It remains open if the data may be mirrored: then it depends on the time.
    """
    predict, dims = recipe.predict, recipe.network.dims
    trained = resolved(recipe.augment).geometry.flip_axes
    mirror_axes = predict.mirror_axes
    if mirror_axes == AUTO:
        mirror_axes = tuple(axis if axis < 0 else axis - dims for axis in trained) or (-2, -1)
    if predict.tta != AUTO:
        return predict.tta, mirror_axes
    return AUTO if trained and predict.tune else "none", mirror_axes


def choose_loss(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Describe the loss of the recipe."""
    names = [
        f"{'' if factor == 1 else f'{factor:g} × '}"
        f"{name if is_custom(name) else str(name).replace('_', ' ')}"
        for name, factor in recipe.loss.terms.items()
        if factor
    ]
    return recipe, RuleResult(
        text=f"Loss: {' + '.join(names)}.",
        fact=f"{situation.data.foreground_share:.1%} of the training pixels are foreground",
        alternative="loss.terms={cross_entropy: 1, tversky: 1}",
        source="Cross-entropy measures every pixel, Dice the overlap in the whole batch. If "
        "foreground is rare, a model trained with cross-entropy alone may predict only "
        "background (nnU-Net; benchmarks/plan.md).",
    )


def choose_learning(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose a moving average of weights if the learning rate stays high."""
    train = recipe.train
    decay = train.ema_decay
    if decay == AUTO:
        decay = 0.99 if train.schedule in ("constant", "warmup") else 0.0
    recipe = change(recipe, "train", ema_decay=decay)
    kept = f"moving average of weights ({decay:g})" if decay else "no moving average of weights"
    schedule = train.schedule.replace("_", " ")
    return recipe, RuleResult(
        text=f"Optimizer: {train.optimizer}, learning rate {train.learning_rate:g} ({schedule}), "
        f"{kept}.",
        fact=f"{train.schedule} schedule",
        alternative="train.learning_rate=auto, which runs a learning-rate range test first",
        source="The default learning rate suits all datasets in the benchmarks. Averaging the "
        "weights over steps helps if the learning rate stays high, but not if it decays to zero "
        "(benchmarks/plan.md).",
    )


def choose_hardware(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose number format and layout by measurement, and loading processes by spare cores."""
    machine = situation.machine
    formats = formats_of(recipe, has_bf16=machine.has_bf16, device=machine.device)
    times = dict[Format, float]()
    chosen = formats[0]
    if len(formats) > 1 and machine.device == "cpu" and recipe.train.epochs is None:
        batch = usual_batch(machine.device, resolved(recipe.sampling.patch_shape))
        trial = change(recipe, "train", batch_size=batch)
        chosen, times = situation.find_format(trial, formats)
    recipe = with_format(recipe, chosen)
    workers = loading_processes(machine) if recipe.train.workers == AUTO else recipe.train.workers
    shared = describe_sharing(recipe.train, machine)
    threads = choose_threads(recipe.train, machine)
    recipe = change(recipe, "train", workers=workers, threads=threads)
    recipe, storage = _choose_storage(recipe, situation)
    cores = pluralize(machine.cores, "core")
    measured = "; ".join(f"{one}: {1000 * time:.0f} ms per step" for one, time in times.items())
    return recipe, RuleResult(
        text=f"Machine: {machine.name}, {cores}; {chosen}, "
        f"data loaded by {pluralize(workers, 'process') if workers else 'the training process'}"
        f"{storage}.{shared}",
        fact=f"bf16 {'is' if machine.has_bf16 else 'is not'} supported by the hardware; {cores}"
        f"{f'; {measured}' if measured else ''}",
        alternative="train.precision=fp32",
        source="bf16 is used if the hardware supports it, and channels last in 2D, unless the time "
        "is limited and a trial on this processor is at least 10% faster otherwise. Loading a "
        "patch takes about 2 ms; if both cores of a machine compute the network, a second process "
        "costs more time than it saves (benchmarks/README.md, Loading).",
    )


def _choose_storage(recipe: Recipe, situation: Situation) -> tuple[Recipe, str]:
    """Decide whether patches are cut from memory or from the files, as `load_cases` does."""
    if recipe.train.patch_source != AUTO:
        return recipe, ""
    needed = situation.stored_bytes(recipe)
    if needed < KEEP_SHARE * situation.machine.main_memory_bytes:
        return change(recipe, "train", patch_source="memory"), ""
    text = (
        f"; patches are cut from the files, because the training images would fill about "
        f"{needed / 1e9:.1f} GB of memory (train.patch_source)"
    )
    return change(recipe, "train", patch_source="files"), text


def choose_batch(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose a batch by the size of the patches, smaller if it would not fit into memory.

    Raises:
        PlanError: if the requested batch, or a single patch, does not fit.
    """
    machine, asked = situation.machine, recipe.train.batch_size
    dtype = {"bf16": torch.bfloat16, "fp64": torch.float64}.get(recipe.train.precision)
    limit, patch = MEMORY_SHARE * machine.memory_bytes, resolved(recipe.sampling.patch_shape)

    @cache
    def needed(batch: int) -> int:
        return memory_estimate(
            recipe.network,
            situation.data.channels,
            batch,
            patch,
            dtype=dtype or torch.float32,
            device=machine.device,
        )

    first = usual_batch(machine.device, patch) if asked == AUTO else asked
    batch = first
    while batch > 1 and needed(batch) > limit:
        batch //= 2
    fits = needed(batch) <= limit
    if not fits or (asked != AUTO and batch < asked):
        fewer = (
            f"--set train.batch_size={batch} --set train.accumulate_grad_batches={first // batch}"
        )
        raise PlanError(
            f"A batch of {pluralize(first, 'patch')} needs about {memory_text(needed(first))}, but "
            f"the machine has {memory_text(machine.memory_bytes)}.",
            code="out_of_memory",
            hint=f"A batch of {batch} fits into memory: {fewer}."
            if fits
            else "Not even one patch fits: use a smaller sampling.patch_shape or network.widths.",
        )
    recipe = change(recipe, "train", batch_size=batch)
    effective = batch * recipe.train.accumulate_grad_batches
    more = f" ({effective} with gradient accumulation)" if effective > batch else ""
    return recipe, RuleResult(
        text=f"Batch: {pluralize(batch, 'patch')}{more}, about {memory_text(needed(batch))}.",
        fact=f"{memory_text(machine.memory_bytes)} of memory on {machine.device}",
        alternative=f"{2 * batch} patches, about {memory_text(needed(2 * batch))}",
        source="On a CPU, a batch has 4 patches of 256 x 256 pixels or 2 of 64 x 64 x 64, and more "
        "of smaller ones, by the square root; elsewhere it has 16, or fewer if memory is short.",
    )


def usual_batch(device: str, patch: tuple[int, ...]) -> int:
    """Return the number of patches in a batch if memory suffices.

    Smaller patches make a step cheaper and a batch larger, both by the square root of their size.
    """
    if device != "cpu":
        return 16
    count, pixels = (4, 256**2) if len(patch) == 2 else (2, 64**3)
    return max(1, min(16, round(count * math.sqrt(pixels / math.prod(patch)))))
