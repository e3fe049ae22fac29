"""Callbacks of the trainer: save weights and checkpoints, log each epoch, show progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ushape.errors import RunError
from ushape.formatting import reason, to_csv
from ushape.io.files import replacing, write_bytes
from ushape.planning.processor import LoadMeter, threads_beside
from ushape.planning.run import Run
from ushape.training.module import SegmentationModule
from ushape.training.pacer import Pacer
from ushape.transforms.overlay import tint_errors


class KeepBest(Callback):
    """Save the averaged weights after each epoch with a new best score on the validation cases.

    The score is the average precision of the objects if the network learns to separate them, then
    the Dice; otherwise it is the Dice. Among epochs with equal scores, the one with the lower
    validation loss is the best, then the later one. If no validation case has foreground, the last
    epoch is the best, because the loss of the background alone would favor a network that predicts
    no foreground.

    If there was no time to validate the last weights, they are kept: the best of the earlier ones
    were learned at a high learning rate, often in a third of the steps. After an interrupt, the
    best of the validated weights are kept instead.

    The weights of every epoch are saved as well if `train.save_every_epoch` is set.
    """

    def __init__(self, run: Run, was_interrupted: Callable[[], bool] = lambda: False):
        self.run, self.was_interrupted, self.best_epoch = run, was_interrupted, -1
        self.best_dice: float | None = -1.0
        self.best_ap: float | None = None
        self.best_loss: float | None = None
        self.is_validated = True
        """Whether the latest epoch, or the weights that are kept at the end, were validated."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        if not self.run.folder.is_dir():
            raise removed_run(self.run)
        dice, epoch = pl_module.validation_dice, trainer.current_epoch + 1
        facts, ap = {"epoch": epoch, "validation_dice": dice}, pl_module.validation_ap
        if ap is not None:
            facts["validation_ap"] = ap
        self._keep_epoch(trainer, pl_module, facts)
        if not self._is_best(ap, dice, pl_module.validation_loss):
            return
        self.best_ap, self.best_dice, self.best_epoch = ap, dice, epoch
        self.best_loss = pl_module.validation_loss
        if trainer.is_global_zero:
            self.run.save_weights(pl_module.averaged.module.state_dict(), facts)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        self.is_validated = pl_module.is_validated
        if not self.is_validated:
            if not self.run.folder.is_dir():
                raise removed_run(self.run)
            self._keep_epoch(trainer, pl_module, {"epoch": trainer.current_epoch + 1})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        if self.was_interrupted() and self.best_epoch >= 0:
            self.is_validated = True  # The kept weights were validated.
        if self.is_validated:
            return
        self.best_epoch = trainer.current_epoch
        if trainer.is_global_zero:
            weights = pl_module.averaged.module.state_dict()
            self.run.save_weights(weights, {"epoch": self.best_epoch})

    def _keep_epoch(
        self, trainer: Trainer, pl_module: SegmentationModule, facts: dict[str, Any]
    ) -> None:
        if trainer.is_global_zero and pl_module.plan.recipe.train.save_every_epoch:
            weights = pl_module.averaged.module.state_dict()
            self.run.save_weights(weights, facts, self.run.epoch_weights_path(facts["epoch"]))

    def _is_best(self, ap: float | None, dice: float | None, loss: float) -> bool:
        if dice is None or self.best_dice is None:
            return True
        # Checkpoints of older versions lack the average precision and the loss of the best epoch.
        if ap is not None and self.best_ap is not None and ap != self.best_ap:
            return ap > self.best_ap
        if dice != self.best_dice:
            return dice > self.best_dice
        return self.best_loss is None or loss <= self.best_loss

    def state_dict(self) -> dict[str, Any]:
        best = {
            "best_dice": self.best_dice,
            "best_epoch": self.best_epoch,
            "is_validated": self.is_validated,
        }
        more = {"best_ap": self.best_ap, "best_loss": self.best_loss}
        return best | {name: value for name, value in more.items() if value is not None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_dice, self.best_epoch = state_dict["best_dice"], state_dict["best_epoch"]
        self.best_ap = state_dict.get("best_ap")
        self.best_loss = state_dict.get("best_loss")
        self.is_validated = state_dict.get("is_validated", True)  # Earlier versions lack it.


class EpochLog(Callback):
    """Write metrics.csv with one row per epoch; checkpoints contain the rows.

    The values of a validation are None in epochs that had none.

    Args:
        on_row: Function that is called with each new row.
    """

    def __init__(
        self,
        run: Run,
        on_row: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.run, self.on_row, self.clock = run, on_row, clock
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self.clock()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        patches = max(1, pl_module.patches)
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "loss": round(pl_module.loss_sum / max(1, pl_module.batches), 6),
            "validation_loss": None,
            "validation_dice": None,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "foreground_patches": round(pl_module.foreground_patches / patches, 4),
            "seconds": round(self.clock() - self._started, 2),
        }
        if pl_module.is_validated:
            row["validation_loss"] = round(pl_module.validation_loss, 6)
            if pl_module.validation_dice is not None:
                row["validation_dice"] = round(pl_module.validation_dice, 6)
            if pl_module.validation_ap is not None:
                row["validation_ap"] = round(pl_module.validation_ap, 6)
        self.rows.append(row)
        if trainer.is_global_zero:
            # The rows of an older version may have fewer columns.
            columns = list(dict.fromkeys(name for one in self.rows for name in one))
            write_bytes(self.run.metrics_path, to_csv(columns, self.rows))
        self.on_row(row)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class ThreadsBeside(Callback):
    """Use as many threads as cores are free, and adapt their number after each epoch.

    Used only with a time limit: the number of threads affects the last digits of the weights, which
    are reproducible if the number of epochs is set.
    """

    def __init__(self, most: int, meter: LoadMeter | None = None):
        self.most, self.meter = most, meter or LoadMeter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.set_num_threads(threads_beside(self.meter.free_cores(), self.most))


class TrainingBar(RichProgressBar):
    """Progress bar with loss, validation Dice and the remaining training time."""

    def __init__(self, pacer: Pacer):
        super().__init__(leave=False)
        self.pacer = pacer

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        found = super().get_metrics(trainer, pl_module)
        metrics = {
            short: found[name]
            for name, short in (("train/loss", "loss"), ("validation/dice", "Dice"))
            if name in found
        }
        left = self.pacer.seconds_left(trainer)
        if left is not None:
            metrics["left"] = f"{int(left) // 60}:{int(left) % 60:02d}"
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:
        # Lightning would show max_epochs, which is open because the pacer ends the training.
        return f"Epoch {current_epoch + 1}"


class WholeFileCheckpoints(TorchCheckpointIO):
    """Write checkpoints to a temporary file first, so that a failure leaves the last one intact."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        target = Path(path)
        try:
            with replacing(target) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # PyTorch hides the reason of a failed write in its own error.
            hidden = error.__context__
            cause = hidden if isinstance(hidden, OSError) else error
            raise RunError(
                f"{target} cannot be written: {reason(cause)}.",
                code="checkpoint_not_written",
                hint="Free some disk space.",
                continuation=Run(target.parent.parent).continuation,
            ) from None

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        try:
            return super().load_checkpoint(path, *arguments, **options)
        except Exception as error:  # PyTorch raises many kinds of errors on damaged files.
            raise damaged_checkpoint(Path(path)) from error


def removed_run(run: Run) -> RunError:
    """Return the error for a run folder that was removed during training."""
    return RunError(
        f"{run.folder} was removed or renamed during training.",
        code="run_removed",
        hint="Repeat the command that started it, or, if it was renamed: ushape resume RUN",
    )


def damaged_checkpoint(path: Path) -> RunError:
    """Return the error for a checkpoint from which training cannot be continued."""
    return RunError(
        f"{path} is damaged, so training cannot be continued from it.",
        code="damaged_checkpoint",
        hint="The best weights so far are in model.safetensors and can predict. Delete the "
        "checkpoint to train this run from the beginning.",
    )


PICTURE_PX = 512
"""Largest side of a validation image in TensorBoard. Drawing images of many megapixels and
compressing them after each epoch would take as long as steps."""


def draw_small(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Tint the errors as `tint_errors` does; large images are subsampled.

    Shapes:
        image: (C, *S); truth, predicted: (*S) class indices.
        returns: (y, x, 3) uint8, each side at most `PICTURE_PX`.
    """
    step = -(-max(truth.shape[-2:]) // PICTURE_PX)
    some = (..., slice(None, None, step), slice(None, None, step))
    return tint_errors(image[some], truth[some], predicted[some])


class ValidationPictures(Callback):
    """Write validation images, with their errors in color, to TensorBoard."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        if trainer.sanity_checking or not isinstance(trainer.logger, TensorBoardLogger):
            return
        for index, predicted in pl_module.shown.items():
            sample = pl_module.validation[index]
            assert sample.classes is not None, "a validation case has a mask"
            image = pl_module.plan.preprocessing.without_neighbors(sample.image)
            picture = draw_small(image, sample.classes, np.asarray(predicted))
            trainer.logger.experiment.add_image(
                f"validation/{sample.case.id}", picture, trainer.current_epoch, dataformats="HWC"
            )
