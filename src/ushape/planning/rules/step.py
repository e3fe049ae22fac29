"""One training step: what is made small, how, in which format, on how many patches."""

from __future__ import annotations

import torch

from ushape.config import AUTO, is_custom, resolved
from ushape.errors import PlanError
from ushape.formatting import pluralize
from ushape.models.memory import memory_estimate
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, Situation, change

MEMORY_SHARE = 0.7
"""Of the memory that a step may be expected to need; the estimate is no upper bound."""


def choose_loss(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Cross-entropy judges every pixel, Dice the overlap over the whole batch: where foreground is
    rare, the one alone would learn to say background (nnU-Net; benchmarks/plan.md)."""
    names = [
        f"{'' if factor == 1 else f'{factor:g} × '}"
        f"{name if is_custom(name) else str(name).replace('_', ' ')}"
        for name, factor in recipe.loss.terms.items()
        if factor
    ]
    fact = f"{situation.data.foreground_share:.1%} of the training pixels are foreground"
    text = f"Loss: {' + '.join(names)}."
    return recipe, RuleResult(text, fact, "loss.terms={cross_entropy: 1, tversky: 1}")


def choose_learning(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """One learning rate for all data. Weights are averaged over steps where the rate stays high;
    where it goes down to zero that was worth nothing, at the end or half-way
    (benchmarks/plan.md)."""
    train = recipe.train
    decay = train.ema_decay
    if decay == AUTO:
        decay = 0.99 if train.schedule in ("constant", "warmup") else 0.0
    recipe = change(recipe, "train", ema_decay=decay)
    schedule = train.schedule.replace("_", " ")
    kept = f"moving average of weights ({decay:g})" if decay else "no average of weights"
    text = f"Learning: {train.optimizer}, rate {train.learning_rate:g} ({schedule}), {kept}."
    fact = f"{train.schedule} schedule"
    return recipe, RuleResult(text, fact, "train.learning_rate=auto, a range test first")


def choose_hardware(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """bf16 where the processor has it; loading processes where there are cores to spare.

    A patch costs about 2 ms. On two cores that all work for the network, a second process takes
    more time from it than it saves (benchmarks/README.md, Loading).
    """
    machine, train = situation.machine, recipe.train
    precision = train.precision
    if precision == AUTO:
        precision = "bf16" if machine.has_bf16 else "fp32"
    spare = machine.cores - 1 if machine.device != "cpu" else machine.cores // 4
    workers = min(spare, 8) if train.workers == AUTO else train.workers
    recipe = change(recipe, "train", precision=precision, workers=workers)
    text = (
        f"Machine: {machine.name}, {machine.cores} cores; {precision}"
        f"{', channels last' if train.channels_last and recipe.network.dims == 2 else ''}, "
        f"{pluralize(workers, 'loading process')}."
    )
    fact = f"bf16 in hardware: {'yes' if machine.has_bf16 else 'no'}; {machine.cores} cores"
    return recipe, RuleResult(text, fact, "train.precision=fp32")


def choose_batch(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """4 patches on a CPU, 16 elsewhere; fewer where they would not fit into memory.

    Raises:
        PlanError: a batch that was asked for, or a single patch, does not fit.
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
            f"{first} patches in a step need about {needed(first) / 1e9:.1f} GB, the machine has "
            f"{machine.memory_bytes / 1e9:.1f}.",
            hint=f"{batch} fit: {fewer}."
            if fits
            else "Not even one fits: a smaller sampling.patch_shape, or narrower network.widths.",
        )
    recipe = change(recipe, "train", batch_size=batch)
    effective = batch * recipe.train.accumulate_grad_batches
    more = f", {effective} with accumulation" if effective > batch else ""
    text = f"Step: {batch} patches{more}, about {needed(batch) / 1e9:.1f} GB."
    fact = f"{machine.memory_bytes / 1e9:.1f} GB of memory on {machine.device}"
    return recipe, RuleResult(text, fact, f"{2 * batch} patches: {needed(2 * batch) / 1e9:.1f} GB")
