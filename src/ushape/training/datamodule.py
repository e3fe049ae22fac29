"""Data loaders of training patches and validation cases."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import numpy as np
from torch.utils.data import DataLoader

from ushape.config import resolved
from ushape.data.batches import EpochBatches, growing_shape
from ushape.data.cache import SampleStore
from ushape.data.sampling import Patch
from ushape.interrupts import ignore_terminal_signals
from ushape.models import network_sizes
from ushape.planning.loading import build_patches
from ushape.planning.plan import Plan
from ushape.training.module import NO_CASE, SegmentationModule


class SegmentationData(lightning.LightningDataModule):
    """Training patches and whole validation cases.

    Args:
        class_pixels: Pixels of each class in the training cases, (cases, classes).
        validation_pixels: The same for the validation cases; None: not known.
    """

    def __init__(
        self,
        plan: Plan,
        training: SampleStore,
        validation: SampleStore,
        class_pixels: np.ndarray,
        validation_pixels: np.ndarray | None = None,
    ):
        super().__init__()
        self.plan, self.validation = plan, validation
        self.validation_pixels = validation_pixels
        self.dataset = build_patches(plan.recipe, plan.preprocessing, training, class_pixels)

    def train_dataloader(self) -> DataLoader[Patch]:
        train = self.plan.recipe.train
        workers = resolved(train.workers)
        steps = resolved(train.steps_per_epoch)

        def find_progress() -> tuple[int, float]:
            # The epoch follows from the step: after resuming, that of Lightning is one too low.
            if not self.trainer:
                return 0, 1.0
            module = self.trainer.lightning_module
            assert isinstance(module, SegmentationModule)
            return self.trainer.global_step // steps, module.schedule.total_steps / steps

        return DataLoader(
            self.dataset,
            batch_sampler=EpochBatches(
                steps * train.accumulate_grad_batches,
                resolved(train.batch_size),
                find_progress,
                patch_size(self.plan),
                *self._place,
            ),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=worker_context() if workers else None,
            worker_init_fn=_leave_signals_to_trainer,
            pin_memory=self.plan.machine.device == "cuda",
        )

    def val_dataloader(self) -> DataLoader[int]:
        """Return a loader of the indices of the validation cases that are planned."""
        most = resolved(self.plan.recipe.train.max_validation_cases)
        chosen = spread_evenly(len(self.validation), most)
        if chosen and self.validation_pixels is not None:
            chosen = with_all_classes(chosen, self.validation_pixels)
        rank, ranks = self._place
        # Processes without a case would skip the exchange of scores, so that others would wait.
        chosen += [NO_CASE] * (-len(chosen) % ranks)
        return DataLoader(chosen[rank::ranks], batch_size=None)  # type: ignore[arg-type]

    @property
    def _place(self) -> tuple[int, int]:
        """Number of this process and number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def patch_size(plan: Plan) -> Callable[[float], tuple[int, ...]]:
    """Return a function of the fraction of steps done that returns the size of the patches."""
    whole = plan.patch_shape
    if not plan.recipe.sampling.growing_patches:
        return lambda progress: whole
    legal_shape = network_sizes(plan.recipe.network).legal_shape
    return lambda progress: growing_shape(progress, whole, legal_shape)


def spread_evenly(count: int, most: int) -> list[int]:
    """Return at most the given number of indices below count, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def with_all_classes(chosen: Sequence[int], pixels: np.ndarray) -> list[int]:
    """Exchange chosen cases for others until each foreground class is in one of them, if possible.

    Otherwise, the validation of few cases could have no foreground, although other cases have some.
    The rarest class comes first. Cases without which a class would be missing are kept.

    Args:
        chosen: Indices of cases.
        pixels: Pixels of each class in all cases, background first.

    Shapes:
        pixels: (cases, classes).
    """
    has, own = pixels[:, 1:] > 0, list(chosen)
    for number in np.argsort(has.sum(axis=0), kind="stable"):
        candidates = np.flatnonzero(has[:, number])
        if not len(candidates) or has[own, number].any():
            continue
        counts = has[own].sum(axis=0)
        is_free = [not (has[case] & (counts == 1)).any() for case in own]
        if any(is_free):
            own[is_free.index(True)] = int(candidates[len(candidates) // 2])
    return sorted(own)


def worker_context() -> Any:
    """Return how worker processes start.

    On Linux they are forked, so that they share the cases in memory. Elsewhere fork is missing
    (Windows) or unsafe (macOS): None starts them in the usual way, with copies of the cases.
    """
    return multiprocessing.get_context("fork") if sys.platform.startswith("linux") else None


def _leave_signals_to_trainer(worker: int) -> None:
    ignore_terminal_signals()
