"""Stores of cases -> Lightning's loaders."""

from __future__ import annotations

import multiprocessing
import signal
from typing import Any

import lightning
import numpy as np
from torch.utils.data import DataLoader

from ushape.config import resolved
from ushape.data.cache import SampleStore
from ushape.data.patches import Patch, PatchDataset
from ushape.data.pixel_weights import PixelWeights
from ushape.data.sampling import EpochSampler, build_draw
from ushape.planning.plan import Plan


class SegmentationData(lightning.LightningDataModule):
    """Training patches and whole validation cases.

    Args:
        class_pixels: (cases, classes) of the training cases.
        margin: Pixels that the network loses on each side.
    """

    def __init__(
        self,
        plan: Plan,
        training: SampleStore,
        validation: SampleStore,
        class_pixels: np.ndarray,
        margin: int,
    ):
        super().__init__()
        sampling = plan.recipe.sampling
        self.plan, self.validation = plan, validation
        self.dataset = PatchDataset(
            training,
            plan.preprocessing.space,
            build_draw(sampling, class_pixels, [case.group for case in training.cases]),
            PixelWeights(plan.recipe.pixel_weights, class_pixels),
            plan.augment,
            patch_shape=plan.patch_shape,
            margin=margin,
            seed=plan.recipe.seed,
        )

    def train_dataloader(self) -> DataLoader[Patch]:
        train = self.plan.recipe.train
        batch_size, workers = resolved(train.batch_size), resolved(train.workers)
        rank, ranks = self._place
        steps = resolved(train.steps_per_epoch)
        # Counted by steps: on resuming, Lightning hands samplers an epoch that is one too low.
        sampler = EpochSampler(
            steps * train.accumulate_grad_batches * batch_size * ranks,
            lambda: self.trainer.global_step // steps if self.trainer else 0,
            rank=rank,
            world_size=ranks,
        )
        return DataLoader(
            self.dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            # Forked workers share the cases in memory; where there is no fork they get copies.
            multiprocessing_context=_fork() if workers else None,
            worker_init_fn=_leave_interrupts_to_the_trainer,
            pin_memory=self.plan.machine.device == "cuda",
        )

    def val_dataloader(self) -> DataLoader[int]:
        """Indices of evenly spread validation cases, as many as planned."""
        most = resolved(self.plan.recipe.train.validation_cases)
        chosen = spread_evenly(len(self.validation), most)
        rank, ranks = self._place
        return DataLoader(chosen[rank::ranks], batch_size=None)  # type: ignore[arg-type]

    @property
    def _place(self) -> tuple[int, int]:
        """This process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def spread_evenly(count: int, most: int) -> list[int]:
    """At most so many indices below count, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _fork() -> Any:
    has_fork = "fork" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork") if has_fork else None


def _leave_interrupts_to_the_trainer(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the workers are still needed for a moment."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
