"""Training and prediction: split, loss, learning rate, hardware, batch, tiles and duration."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ushape.config import AUTO, is_custom, resolved
from ushape.errors import PlanError
from ushape.formatting import pluralize, size_text
from ushape.models import memory_estimate
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, Situation, change

MEMORY_SHARE = 0.7
"""Share of the memory that a step is planned to use; the estimate is not an upper bound."""

STEP_OVERHEAD = 1.12
"""Duration of a step in training relative to one measured alone: loading, averaging, logging."""

VALIDATION_SHARE = 0.4
"""Validation pixels per training pixel in an epoch. A training step takes about four times as long
as a prediction of as many pixels (481 against 119 ms), so validation takes a tenth of the time."""

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
        text = f"Scores: fold {recipe.split.fold + 1} of {folds}, on {tested}."
        alternative = "one split"
    else:
        more = min(USUAL_FOLDS, split.groups)
        text, alternative = f"Scores: one split, on {tested}", f"--folds {more}"
        if split.test_groups < MIN_TEST_GROUPS and split.kind != "stack":
            text += f"; --folds {more} would test on all {split.groups}, in {more} times the time"
        text += "."
    return recipe, RuleResult(
        text=text,
        fact=fact,
        alternative=alternative,
        source="One training fits into the user's time; cross-validation tests on every group and "
        "takes as many times longer as it has folds, so that the user decides. Slices that look "
        "like their neighbors add little information, so that groups count, not images.",
    )


def choose_prediction(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose large tiles with a small overlap, unless the norm layers depend on the tile."""
    predict = recipe.predict
    tile = predict.tile_shape
    patch = resolved(recipe.sampling.patch_shape)
    if tile == AUTO:
        in_plane = 1024 if len(patch) == 2 else 160
        limit = in_plane if recipe.network.norm in ("none", "batch") else 0
        tile = tuple(max(size, limit) for size in patch)
    overlap = predict.tiling.overlap_fraction
    if overlap == AUTO:
        overlap = round(min(0.25, OVERLAP_PX / min(tile)), 4)
    tta = "none" if predict.tta == AUTO else predict.tta
    tiling = replace(predict.tiling, overlap_fraction=overlap)
    recipe = change(recipe, "predict", tile_shape=tile, tta=tta, tiling=tiling)
    versions = (
        "without test-time augmentation" if tta == "none" else f"test-time augmentation {tta}"
    )
    return recipe, RuleResult(
        text=f"Prediction: tiles of about {size_text(tile)} pixels with an overlap of "
        f"{overlap:.0%}, {versions}.",
        fact=f"{recipe.network.norm} norm",
        alternative="predict.tta=mirrored, four times slower",
        source="Most of the time for a large image goes into pixels that are computed twice, so "
        "that tiles are large and overlap by 64 pixels (benchmarks/README.md, Prediction speed). "
        "Instance and group norm use the statistics of the tile: tiles have about the patch size.",
    )


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
        source="Cross-entropy scores every pixel, Dice the overlap over the whole batch: if "
        "foreground is rare, cross-entropy alone would learn to predict background (nnU-Net; "
        "benchmarks/plan.md).",
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
        text=f"Learning: {train.optimizer}, learning rate {train.learning_rate:g} ({schedule}), "
        f"{kept}.",
        fact=f"{train.schedule} schedule",
        alternative="train.learning_rate=auto, which runs a learning-rate range test first",
        source="One learning rate serves all data. Averaging the weights over steps helps if the "
        "learning rate stays high, but not if it decays to zero, neither at the end nor half-way "
        "(benchmarks/plan.md).",
    )


def choose_hardware(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose bf16 if the processor has it, and loading processes if there are spare cores."""
    machine, train = situation.machine, recipe.train
    precision = train.precision
    if precision == AUTO:
        precision = "bf16" if machine.has_bf16 else "fp32"
    spare = machine.cores - 1 if machine.device != "cpu" else machine.cores // 4
    workers = min(spare, 8) if train.workers == AUTO else train.workers
    recipe = change(recipe, "train", precision=precision, workers=workers)
    cores = pluralize(machine.cores, "core")
    return recipe, RuleResult(
        text=f"Machine: {machine.name}, {cores}; {precision}"
        f"{', channels last' if train.channels_last and recipe.network.dims == 2 else ''}, "
        f"{pluralize(workers, 'loading process')}.",
        fact=f"bf16 in hardware: {'yes' if machine.has_bf16 else 'no'}; {cores}",
        alternative="train.precision=fp32",
        source="bf16 is used if the processor has it. A patch takes about 2 ms to load: on two "
        "cores that both compute the network, a second process costs more time than it saves "
        "(benchmarks/README.md, Loading).",
    )


def choose_batch(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose 4 patches on a CPU, 16 elsewhere, fewer if they would not fit into memory.

    Raises:
        PlanError: if the batch that was asked for, or a single patch, does not fit.
    """
    machine, asked = situation.machine, recipe.train.batch_size
    dtype = {"bf16": torch.bfloat16, "fp64": torch.float64}.get(recipe.train.precision)
    limit = MEMORY_SHARE * machine.memory_bytes

    def needed(batch: int) -> int:
        return memory_estimate(
            recipe.network,
            situation.data.channels,
            batch,
            resolved(recipe.sampling.patch_shape),
            dtype=dtype or torch.float32,
            device=machine.device,
        )

    first = (4 if machine.device == "cpu" else 16) if asked == AUTO else asked
    batch = first
    while batch > 1 and needed(batch) > limit:
        batch //= 2
    fits = needed(batch) <= limit
    if not fits or (asked != AUTO and batch < asked):
        fewer = (
            f"--set train.batch_size={batch} --set train.accumulate_grad_batches={first // batch}"
        )
        raise PlanError(
            f"A step of {pluralize(first, 'patch')} needs about {needed(first) / 1e9:.1f} GB, but "
            f"the machine has {machine.memory_bytes / 1e9:.1f} GB.",
            code="out_of_memory",
            hint=f"A batch of {batch} fits: {fewer}."
            if fits
            else "Not even one fits: use a smaller sampling.patch_shape or network.widths.",
        )
    recipe = change(recipe, "train", batch_size=batch)
    effective = batch * recipe.train.accumulate_grad_batches
    more = f", {effective} with gradient accumulation" if effective > batch else ""
    return recipe, RuleResult(
        text=f"Step: {pluralize(batch, 'patch')}{more}, about {needed(batch) / 1e9:.1f} GB.",
        fact=f"{machine.memory_bytes / 1e9:.1f} GB of memory on {machine.device}",
        alternative=f"{2 * batch} patches: {needed(2 * batch) / 1e9:.1f} GB",
        source="4 patches on a CPU, 16 elsewhere, fewer if they would not fit into memory.",
    )


def choose_duration(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose the number of epochs and of steps per epoch, by the measured speed."""
    train, data = recipe.train, situation.data
    patches = resolved(train.batch_size) * train.accumulate_grad_batches
    batch_pixels = patches * math.prod(resolved(recipe.sampling.patch_shape))
    shape = recipe.preprocessing.working_shape(data.median_shape)
    working_pixels = data.pixels_per_epoch * math.prod(shape) / math.prod(data.median_shape)
    epochs, speed, fact, evaluation_s = train.epochs, "", "the number of epochs is set", 0.0
    if epochs is not None:
        steps = max(1, math.ceil(working_pixels / batch_pixels))
    else:
        budget = situation.measure_time(recipe)
        training_s, step_s = budget.training_s, budget.step_s
        total = training_s / (step_s * STEP_OVERHEAD / 0.9)  # A tenth is for validation.
        epoch_s = min(120.0, max(5.0, training_s / 20), training_s / 3)
        epochs = max(1, round(training_s / epoch_s))
        steps = max(1, round(total / epochs))
        speed = f" at {step_s * 1000:.0f} ms per step ({patches / step_s:.1f} patches/s)"
        fact, evaluation_s = f"{training_s:.0f} s for training", budget.evaluation_s
        if train.steps_per_epoch != AUTO:
            epochs = max(1, round(total / train.steps_per_epoch))
    steps = steps if train.steps_per_epoch == AUTO else train.steps_per_epoch
    cases = train.validation_cases
    if cases == AUTO:
        case_pixels = working_pixels / data.cases
        cases = max(2, round(VALIDATION_SHARE * steps * batch_pixels / case_pixels))
    recipe = change(recipe, "train", epochs=epochs, steps_per_epoch=steps, validation_cases=cases)
    passes = epochs * steps * batch_pixels / working_pixels
    return recipe, RuleResult(
        text=f"Training: {pluralize(epochs, 'epoch')} of {pluralize(steps, 'step')}{speed}; the "
        "weights with the best validation Dice are kept.",
        fact=f"{fact}; each pixel is seen about {passes:.0f} times",
        alternative="more minutes",
        source="In a given time: about twenty epochs, none shorter than 5 s or longer than 2 "
        "minutes; three in a very short training, so that there is a choice of weights and a "
        "point to resume from. With a given number of epochs: an epoch sees as many pixels as the "
        "training cases have.",
        evaluation_s=evaluation_s,
    )
