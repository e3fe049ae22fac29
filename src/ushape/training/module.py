"""Training step, moving average of the weights, and validation on whole cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from ushape.config import resolved
from ushape.data.sampling import Patch
from ushape.errors import RunError
from ushape.inference.ensemble import sample_probabilities
from ushape.inference.separation import (
    add_object_counts,
    comparable_settings,
    mean_precision,
    separate,
    tabulate_counts,
)
from ushape.labels import IGNORE, LabelSpace
from ushape.losses import build_loss
from ushape.metrics.instance import ObjectCounts
from ushape.metrics.overlap import Counts, count_classes, dice
from ushape.models import build_model
from ushape.models.pretrained import load_synthetic_weights
from ushape.models.unet import UNet
from ushape.planning.encoder_weights import read_encoder, refuse_changed
from ushape.planning.hardware import memory_format
from ushape.planning.plan import Plan
from ushape.training.optimizers import Schedule, build_optimizer, scale_rate
from ushape.training.ranks import Rank
from ushape.types import Sample

MAX_SCORED_PX = 250_000
"""Number of pixels of validation cases whose objects are compared after each epoch, shared equally
by the cases. For cells 30 pixels wide, comparing one setting takes about 0.1 s on one core, and
predicting them with a small network 0.05 s."""

MIN_SCORED_PX = 128 * 128
"""Minimum number of pixels of each case that are compared, so that most objects are complete."""

NO_CASE = -1
"""Index of a validation case for processes that have fewer cases than others."""

SHOWN = 4
"""Number of validation cases that are drawn in TensorBoard."""


class SegmentationModule(lightning.LightningModule):
    """Network and loss; the moving average of the weights is validated and saved.

    Args:
        validation: Cases whose indices `validation_step` receives.
        groups: Group of each validation case.
        initial: Initial weights by name, of all layers or of some; the others are random. None:
            those of the plan. No file is read if a mapping is passed, even if it is empty.
        rank: Rank of this process in distributed training; None: it trains alone.

    Raises:
        RunError: if the weights of the plan are missing, damaged, or have changed.
        PlanError: if they are those of another network.
    """

    def __init__(
        self,
        plan: Plan,
        validation: Sequence[Sample],
        groups: Sequence[str],
        initial: Mapping[str, Tensor] | None = None,
        rank: Rank | None = None,
    ):
        super().__init__()
        self.rank = rank
        recipe, preprocessing = plan.recipe, plan.preprocessing
        train = recipe.train
        assert train.epochs is not None
        self.plan, self.validation = plan, validation
        self.schedule = Schedule(train, train.epochs * resolved(train.steps_per_epoch))
        self.layout = memory_format(
            recipe.network.dims, channels_last=resolved(train.channels_last)
        )

        channels = preprocessing.input_channels
        network = build_model(recipe.network, channels, preprocessing.space.outputs)
        if initial is None:
            initial = planned_weights(plan, network.state_dict())
        network.load_state_dict({**network.state_dict(), **initial})
        self.network: nn.Module = network.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.averaged = AveragedModel(
            self.network, multi_avg_fn=moving_average(resolved(train.ema_decay)), use_buffers=True
        )
        self.averaged.requires_grad_(False)
        self.loss = build_loss(
            recipe.loss, preprocessing.space, deep_supervision=recipe.network.extra_outputs > 0
        )
        self.shown: dict[int, np.ndarray] = {}
        """Latest prediction (*S) of a few validation cases, by index."""
        self._group_index = {group: index for index, group in enumerate(sorted(set(groups)))}
        self.foreground_patches = self.patches = self.batches = 0
        self.loss_sum = self.validation_loss = 0.0
        self.validation_dice: float | None = 0.0
        """Mean Dice of the validation groups; None if no foreground is annotated in any of them."""
        self.is_validated = True
        """Whether the latest epoch ended with a validation."""
        self.validation_ap: float | None = None
        """Average precision of the objects; None if the network does not learn to separate them."""

    def loss_of(self, batch: Patch) -> Tensor:
        """Return the loss of a batch, which is on the device of the network."""
        image = batch["image"].to(memory_format=self.layout)
        found, target, weight = self.network(image), batch["target"], batch["weight"]
        if self.rank is not None:
            # Overlap is pooled over all patches of a batch, so that a mean of the losses of the
            # processes would be another loss.
            found, target, weight = map(self.rank.gather, (found, target, weight))
        loss: Tensor = self.loss(found, target, weight)
        return loss

    def training_step(self, batch: Patch, batch_index: int) -> Tensor:
        loss = self.loss_of(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RunError(
                f"The loss became {value} in epoch {self.current_epoch + 1}, "
                f"step {batch_index + 1}.",
                code="loss_not_finite",
                hint="Lower the learning rate, e.g. --set train.learning_rate=0.0005, or use "
                "--set train.precision=fp32.",
            )
        self.loss_sum += value
        self.batches += 1
        seen = batch["target"][:, self.plan.preprocessing.space.foreground].flatten(1).any(dim=1)
        self.foreground_patches += int(seen.sum())
        self.patches += len(seen)
        self.log("train/loss", loss, prog_bar=True)
        # DDP averages the gradients; each process computes its own share of them.
        return loss if self.rank is None else loss * self.rank.count

    def on_train_epoch_start(self) -> None:
        # Dropout must not depend on the number of interruptions before.
        seed = self.plan.recipe.seed * 1_000_003 + self.current_epoch
        torch.manual_seed(seed + 7_368_787 * self.global_rank)
        self.foreground_patches = self.patches = self.batches = 0
        self.loss_sum, self.is_validated = 0.0, False

    def on_train_batch_start(self, batch: Patch, batch_index: int) -> None:
        if self.plan.recipe.network.is_pretrained:
            is_frozen = self.schedule.freezes_encoder(self.global_step)
            self.network.get_submodule("encoder").requires_grad_(not is_frozen)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        if (batch_index + 1) % self.plan.recipe.train.accumulate_grad_batches == 0:
            self.averaged.update_parameters(self.network)

    def on_validation_epoch_start(self) -> None:
        scored = len(self.plan.preprocessing.space.scored)
        shape = len(self._group_index), scored, 4
        self._counts = torch.zeros(shape, dtype=torch.long, device=self.device)
        self._cross_entropy = np.zeros(2)  # Sum and number of pixels.
        settings = comparable_settings(self.plan.recipe.predict.objects, [])
        self._object_counts: list[dict[str, ObjectCounts]] = [{} for _ in settings]

    def validation_step(self, index: int, batch_index: int) -> None:
        if index == NO_CASE:
            return
        sample = self.validation[index]
        assert sample.classes is not None, "a validation case has a mask"
        space = self.plan.preprocessing.space
        self.averaged.eval()
        # One version of each image is enough to compare epochs.
        precision = self.plan.recipe.train.precision
        found, distance = space.split_outputs(
            sample_probabilities(self.averaged.module, sample, self.plan, precision)
        )
        classes = space.decode(found)
        if len(self.shown) < SHOWN or index in self.shown:
            self.shown[index] = classes
        if distance is not None and sample.objects is not None:
            self._count_objects(classes, distance, sample.classes, sample.objects)
        row = self._group_index[sample.case.group]
        self._cross_entropy += cross_entropy_sum(found, sample.classes, space)
        counts = count_classes(classes, sample.classes, space.scored)
        self._counts[row] += torch.tensor(
            [[own.overlap, own.truth, own.predicted, own.pixels] for own in counts],
            device=self.device,
        )

    def _count_objects(
        self, classes: np.ndarray, distance: np.ndarray, truth: np.ndarray, objects: np.ndarray
    ) -> None:
        """Compare the objects of a part of a case, separated with each comparable setting.

        All validation cases have parts of the same size, in the middle, or if no object is
        annotated there, around the nearest one.

        Shapes:
            all (*S): predicted classes and distance, annotated classes and numbers of objects.
        """
        how, space = self.plan.recipe.predict.objects, self.plan.preprocessing.space
        if how.separation != "learned_distance":
            return
        cases = min(len(self.validation), resolved(self.plan.recipe.train.max_validation_cases))
        part = part_with_objects(objects, max(MIN_SCORED_PX, MAX_SCORED_PX // max(1, cases)))
        classes, distance, truth = classes[part], distance[part], truth[part]
        objects = objects[part]
        truths = [np.where(region.of(truth), objects, 0) for region in space.scored]
        sizes = np.unique(objects[objects > 0], return_counts=True)[1].tolist()
        for totals, own in zip(self._object_counts, comparable_settings(how, sizes), strict=True):
            found, labels = separate(classes, distance, space, own)
            add_object_counts(totals, found, labels, truths, truth != IGNORE, space)

    def on_validation_epoch_end(self) -> None:
        self.is_validated = True
        counts = self._sum(self._counts).tolist()
        has_foreground = any(row[1] for group in counts for row in group)
        self.validation_dice = mean_group_dice(counts) if has_foreground else None
        entropy, pixels = self._sum_values(self._cross_entropy)
        self.validation_loss = entropy / max(1.0, pixels)
        seen = self._sum_values(np.array([self.foreground_patches, self.patches]))
        self.foreground_patches, self.patches = map(int, seen)
        names = [region.name for region in self.plan.preprocessing.space.scored]
        counted = [tabulate_counts(totals, names) for totals in self._object_counts]
        tables = self._sum(torch.from_numpy(np.stack(counted)).to(self.device)).cpu().numpy()
        known = [own for own in map(mean_precision, tables) if own is not None]
        self.validation_ap = max(known, default=None)
        if self.validation_ap is not None:
            self.log("validation/ap", self.validation_ap, sync_dist=True)
        score = self.validation_dice if self.validation_ap is None else self.validation_ap
        if score is not None:
            self.log("validation/score", score, sync_dist=True)
        if self.validation_dice is not None:
            self.log("validation/dice", self.validation_dice, prog_bar=True, sync_dist=True)
        self.log("validation/loss", self.validation_loss, sync_dist=True)
        self.log("train/epoch_loss", self.loss_sum / max(1, self.batches), sync_dist=True)

    def _sum(self, own: Tensor) -> Tensor:
        """Return the sum over all processes that train together."""
        return self.trainer.strategy.reduce(own, reduce_op="sum")

    def _sum_values(self, own: np.ndarray) -> list[float]:
        """Return the sums of numbers over all processes, without rounding them to float32."""
        if self.rank is None:
            return own.tolist()
        return self._sum(torch.from_numpy(own).to(self.device)).tolist()

    def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
        # Lightning refuses to clip gradients of fused optimizers because of the loss scaling of
        # fp16, which bf16 and fp32 do not use.
        largest = self.plan.recipe.train.gradient_clip
        if largest:
            nn.utils.clip_grad_norm_(self.network.parameters(), largest, foreach=True)

    def build_optimizer(self) -> Optimizer:
        """Build the optimizer of the recipe, with other rates for the head and the encoder."""
        train = self.plan.recipe.train
        optimizer = build_optimizer(self.network.parameters(), train, self.device.type)
        factor = resolved(train.head_lr_factor)
        if isinstance(self.network, UNet) and factor != 1:
            scale_rate(optimizer, self.network.heads.parameters(), factor)
        if self.plan.recipe.network.is_pretrained:
            encoder = self.network.get_submodule("encoder")
            scale_rate(optimizer, encoder.parameters(), train.encoder_lr_factor)
        return optimizer

    def configure_optimizers(self) -> Any:
        optimizer = self.build_optimizer()
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def part_with_objects(objects: np.ndarray, most_px: int) -> tuple[slice, ...]:
    """Return the part of an array that has at most about `most_px` pixels, and an object.

    It is in the middle, or around the annotated pixel that is nearest to the middle.

    Args:
        objects: (*S) numbers of the objects, 0 outside.
    """
    shape = objects.shape
    share = min(1.0, (most_px / math.prod(shape)) ** (1 / len(shape)))
    sizes = [max(1, math.ceil(share * size)) for size in shape]
    middle = np.array(shape) // 2
    part = _part_around(middle, sizes, shape)
    if not objects[part].any() and objects.any():
        places = np.argwhere(objects)
        part = _part_around(places[((places - middle) ** 2).sum(axis=1).argmin()], sizes, shape)
    return part


def _part_around(
    center: np.ndarray, sizes: Sequence[int], shape: Sequence[int]
) -> tuple[slice, ...]:
    """Return a part of an array with a center as near to the given one as the border allows."""
    starts = [
        min(max(0, int(place) - size // 2), whole - size)
        for place, size, whole in zip(center, sizes, shape, strict=True)
    ]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def planned_weights(plan: Plan, fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that training starts from by name, without those that are random.

    Args:
        fresh: Random initial values of all tensors of the network.

    Raises:
        RunError: if the weights are missing, damaged, or not those of the plan.
        PlanError: if the weights are those of another network.
    """
    network, preprocessing = plan.recipe.network, plan.preprocessing
    if not network.is_pretrained:
        if plan.recipe.train.initial_weights == "random":
            return {}
        return load_synthetic_weights(network, preprocessing.input_channels, fresh)
    if plan.encoder is not None:
        refuse_changed(plan.encoder, network)
    channels, intensity = preprocessing.input_channels, preprocessing.config.intensity
    found = read_encoder(network, channels, intensity)
    return {f"encoder.{name}": value for name, value in found.items()}


def cross_entropy_sum(
    probabilities: np.ndarray, classes: np.ndarray, space: LabelSpace
) -> tuple[float, float]:
    """Return the summed cross-entropy of all pixels that are not ignored, and their number.

    Shapes:
        probabilities: (K, *S); classes: (*S) indices or IGNORE.
    """
    valid = classes != IGNORE
    truth = classes[valid]
    if space.is_exclusive:
        chance = np.take_along_axis(probabilities[:, valid], truth[None].astype(int), axis=0)
    else:
        shown = np.stack([region.of(truth) for region in space.scored])
        chance = np.where(shown, probabilities[:, valid], 1 - probabilities[:, valid])
    entropy = -np.log(chance.clip(1e-7, None)).mean(axis=0).sum()
    return float(entropy), float(truth.size)


def moving_average(decay: float) -> Any:
    """Return the update of `AveragedModel`: an exponential moving average.

    The decay of step t is min(decay, (1 + t) / (10 + t)), as in TensorFlow, so that the initial
    weights lose their influence quickly.
    """

    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        step = int(count)
        follow = 1 - min(decay, (1 + step) / (10 + step))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, follow)
        else:  # Counters, such as that of batch norm.
            torch._foreach_copy_(averaged, current)

    return update


def mean_group_dice(counts: Sequence[Sequence[Sequence[int]]]) -> float:
    """Return the mean over classes of the mean Dice over groups in which the class is annotated.

    If no class is annotated in any group, return 1 minus the fraction of false positive pixels.

    Args:
        counts: (groups, classes, 4): overlap, truth, predicted, pixels; without background.
    """
    class_means = []
    for class_index in range(len(counts[0])):
        scores = [
            dice(Counts(overlap=overlap, truth=truth, predicted=predicted, pixels=pixels))
            for overlap, truth, predicted, pixels in (group[class_index] for group in counts)
            if truth
        ]
        if scores:
            class_means.append(sum(score or 0.0 for score in scores) / len(scores))
    if class_means:
        return sum(class_means) / len(class_means)
    wrong = sum(row[2] for group in counts for row in group)
    return 1 - wrong / max(1, sum(row[3] for group in counts for row in group))
