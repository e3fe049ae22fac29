"""Train the network of a plan with Lightning's Trainer, and save its weights in a run."""

from __future__ import annotations

import gc
import logging
import math
import os
import re
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from ushape.config import resolved
from ushape.console import Console
from ushape.data.cache import SampleStore
from ushape.errors import MAIN_GUARD, PlanError, RunError, is_disk_full
from ushape.formatting import reason
from ushape.interrupts import at_first_interrupt
from ushape.io.files import real_path
from ushape.planning.plan import Plan
from ushape.planning.processor import follows_load
from ushape.planning.run import Run
from ushape.planning.shares import share_of_step
from ushape.training.callbacks import (
    EpochLog,
    KeepBest,
    ThreadsBeside,
    TrainingBar,
    ValidationPictures,
    WholeFileCheckpoints,
    damaged_checkpoint,
    removed_run,
)
from ushape.training.datamodule import SegmentationData
from ushape.training.module import SegmentationModule
from ushape.training.pacer import Pacer, pacer_of
from ushape.training.ranks import Agreement, Rank

PRECISIONS: dict[str, Any] = {"bf16": "bf16-mixed", "fp32": "32-true", "fp64": "64-true"}
"""Names of the precisions in Lightning."""

LOGGED = {
    "validation_score": "validation/score",
    "validation_dice": "validation/dice",
    "validation_loss": "validation/loss",
    "training_loss": "train/epoch_loss",
}
"""Names under which quantities are logged."""


KILLED_LOADER = re.compile("DataLoader worker .*(killed|exited unexpectedly)", re.DOTALL)
"""Message of PyTorch if a process that loads patches has ended."""

NO_SHARED_MEMORY = re.compile(
    "out of shared memory|insufficient shared memory|unable to (allocate|resize|write|stretch).*"
    "(shared memory|/torch_)"
)
"""Messages of PyTorch if a batch does not fit into the memory that processes share."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Outcome of training."""

    best_dice: float | None
    """Validation Dice of the epoch whose weights are kept; None if it was not validated, or if no
    validation case has foreground."""

    best_epoch: int
    epochs: int
    was_interrupted: bool
    foreground_patches: float
    """Fraction of the patches of the last epoch that contained foreground."""

    best_ap: float | None = None
    """Average precision of the objects in that epoch; None if they are not learned."""

    is_validated: bool = True
    """Whether that epoch was validated; False: there was no time for it."""


def fit(
    plan: Plan,
    run: Run,
    training: SampleStore,
    validation: SampleStore,
    class_pixels: np.ndarray,
    *,
    validation_pixels: np.ndarray | None = None,
    initial: Mapping[str, Tensor] | None = None,
    budget_s: float | None = None,
    resume: bool = False,
    show_bar: bool = False,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
    rank: Rank | None = None,
) -> FitResult:
    """Train, and save the best weights and the last checkpoint in the run.

    Args:
        class_pixels: Pixels of each class, (training cases, classes).
        validation_pixels: The same of the validation cases; None: not known.
        initial: Weights to start from by name; None: those of the plan.
        budget_s: Seconds from now until training must have ended, even if it is continued; None: as
            many epochs as planned.
        resume: Whether to continue from the last checkpoint of the run, if there is one.
        on_row: Function that is called with each row of metrics.csv.
        rank: Position of this process among those that train together; None: it trains alone.

    Raises:
        RunError: if a checkpoint cannot be read or written, or the loss is not finite.
        ConfigError: if network or loss are defined in a Python file that the user did not specify.
    """
    run.require_code(plan, training=True)
    _silence_lightning()
    _silence_tensorboard()
    torch.manual_seed(plan.recipe.seed)
    checkpoint = run.checkpoint_path if resume and run.checkpoint_path.exists() else None
    if checkpoint is not None:
        _refuse_damaged(checkpoint)
        initial = {}  # The checkpoint contains all weights.
    groups = [one.group for one in validation.cases]
    module = SegmentationModule(plan, validation, groups, initial, rank)
    data = SegmentationData(plan, training, validation, class_pixels, validation_pixels)
    interrupt = threading.Event()
    best, log = KeepBest(run, interrupt.is_set), EpochLog(run, on_row)
    pacer = pacer_of(plan, module.schedule, budget_s)
    callbacks = [best, log, *_pacing(plan, pacer, budget_s, show_bar, rank)]
    if rank is not None:
        callbacks.append(Agreement(module.schedule, interrupt))
    trainer = _build_trainer(plan, run, callbacks, show_bar, rank)
    with (
        _stop_at_first_interrupt(trainer, interrupt),
        _known_warnings(),
        _errors_of_training(run, pacer, checkpoint),
    ):
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return FitResult(
        best_dice=best.best_dice if best.is_validated else None,
        best_ap=best.best_ap if best.is_validated else None,
        best_epoch=best.best_epoch,
        epochs=len(log.rows),
        is_validated=best.is_validated,
        was_interrupted=interrupt.is_set(),
        foreground_patches=log.rows[-1]["foreground_patches"] if log.rows else 0.0,
    )


def _pacing(
    plan: Plan, pacer: Pacer, budget_s: float | None, show_bar: bool, rank: Rank | None
) -> Iterator[Callback]:
    """Yield the callbacks that keep the time limit, and show the progress."""
    yield pacer
    if show_bar:
        yield TrainingBar(pacer)
    # Several processes of one machine would take the threads of one another.
    if rank is None and budget_s is not None and follows_load(plan.recipe.train, plan.machine):
        yield ThreadsBeside(resolved(plan.recipe.train.threads))


@contextmanager
def _errors_of_training(run: Run, pacer: Pacer, checkpoint: Path | None) -> Iterator[None]:
    """Replace exceptions whose cause is known by errors that say what to do.

    Args:
        checkpoint: Checkpoint from which the training continues; None: it does not.
    """
    try:
        yield
    except SystemExit as ended:  # Lightning replaces the exception of an interrupt.
        raise ended.__context__ or ended from None
    except OSError as error:
        raise _not_written(run, error) from None
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        if checkpoint is not None and not pacer.has_started:  # It was being restored.
            raise damaged_checkpoint(checkpoint) from error
        if NO_SHARED_MEMORY.search(str(error)):
            raise _no_shared_memory(run) from None
        if KILLED_LOADER.search(str(error)):
            raise _killed_loader(run) from None
        raise


def _not_written(run: Run, error: OSError) -> Exception:
    """Return the error for a file of the run that cannot be written; others are returned as is.

    Among the others are those of the standard output, such as a pipe that its reader has closed.
    """
    if not run.folder.is_dir():
        return removed_run(run)
    is_full = is_disk_full(error)
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    is_of_run = real_path(Path(name)).is_relative_to(real_path(run.folder)) if name else is_full
    if not is_of_run:
        return error
    return RunError(
        f"{name or run.folder} cannot be written: {reason(error)}.",
        code="run_not_written",
        hint="Free some disk space." if is_full else "Check the permissions and the disk.",
        continuation=run.continuation,
    )


def _killed_loader(run: Run) -> RunError:
    return RunError(
        "A process that loads patches was killed, probably because memory ran out.",
        code="loader_killed",
        hint="Close other programs. If it happens again, train with --set train.workers=0. "
        + MAIN_GUARD,
        continuation=run.continuation,
    )


def _no_shared_memory(run: Run) -> RunError:
    return RunError(
        "The processes that load patches have filled the shared memory (/dev/shm).",
        code="shared_memory_full",
        hint="Start the container with more, for example docker run --shm-size=8g or --ipc=host.",
        continuation=run.continuation,
    )


def _refuse_damaged(checkpoint: Path) -> None:
    """Check the checksums of a checkpoint, which is a zip archive."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            is_whole = archive.testzip() is None
    except Exception:  # zipfile raises many kinds of errors on random bytes.
        is_whole = False
    if not is_whole:
        raise damaged_checkpoint(checkpoint)


def _build_trainer(
    plan: Plan, run: Run, callbacks: Sequence[Callback], show_bar: bool, rank: Rank | None
) -> lightning.Trainer:
    train = plan.recipe.train
    every_epoch = ModelCheckpoint(
        dirpath=run.checkpoint_path.parent,
        filename=run.checkpoint_path.stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    extras: list[Callback] = [every_epoch, ValidationPictures()]
    if train.patience is not None:
        mode = "max" if train.monitor in ("validation_score", "validation_dice") else "min"
        quantity = LOGGED[train.monitor]
        # Epochs without a validation do not count. Without foreground in any validation case there
        # is no score, and training is not stopped.
        stopping = EarlyStopping(
            quantity,
            mode=mode,
            patience=train.patience,
            strict=False,
            check_on_train_epoch_end=False,
        )
        extras.append(stopping)
    return lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(plan.machine.device, plan.machine.device),
        **({"devices": 1} if rank is None else rank.trainer_options(plan)),
        precision=PRECISIONS[resolved(train.precision)],
        accumulate_grad_batches=train.accumulate_grad_batches,
        max_epochs=-1,  # The pacer ends the training, because it may change the number of steps.
        callbacks=[*callbacks, *extras],
        logger=TensorBoardLogger(run.folder, name="tensorboard", version=""),
        plugins=[WholeFileCheckpoints()],
        log_every_n_steps=min(10, resolved(train.steps_per_epoch)),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # EpochBatches is given its rank.
        enable_progress_bar=show_bar,
        enable_model_summary=False,
        benchmark=False,  # cuDNN's search takes seconds for each patch size and gains nothing.
    )


@contextmanager
def _stop_at_first_interrupt(
    trainer: lightning.Trainer, interrupt: threading.Event
) -> Iterator[None]:
    """Finish the step, validate and end at the first Ctrl-C; stop immediately at the second."""

    def stop() -> None:
        interrupt.set()
        if trainer.world_size == 1:  # Several processes have to agree on the step.
            trainer.should_stop = True

    with at_first_interrupt(stop):
        yield


def _silence_lightning() -> None:
    """Silence Lightning's messages about its configuration, which users cannot change."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _silence_tensorboard() -> None:
    """Silence the traceback of TensorBoard's thread; the exception is raised in fit as well."""
    before = threading.excepthook

    def show(arguments: threading.ExceptHookArgs) -> None:
        if not type(arguments.thread).__module__.startswith("tensorboard"):
            before(arguments)

    if before.__module__ != __name__:
        threading.excepthook = show


@contextmanager
def _known_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # The plan chooses the workers, and the checkpoint is replaced on purpose.
        for message in (
            ".*does not have many workers.*",
            ".*in eval mode at the start of training.*",  # The norms of a pretrained encoder.
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*LeafSpec.* is deprecated.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


Result = TypeVar("Result")

OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory", re.IGNORECASE)
"""Messages of PyTorch's allocators, on accelerators and on CPUs."""


def train_within_memory(
    train: Callable[[Plan, bool], Result],
    plan: Plan,
    run: Run,
    console: Console,
    *,
    resume: bool,
) -> tuple[Result, Plan]:
    """Train; if memory runs out, halve the batch and continue from the last epoch."""
    while True:
        try:
            return train(plan, resume), plan
        except (MemoryError, RuntimeError) as error:
            plan, resume = _with_half_the_batch(plan, error, console), True
            run.save_plan(plan)


def is_about_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def _with_half_the_batch(plan: Plan, error: Exception, console: Console) -> Plan:
    """Return the plan with half the batch size and twice the number of accumulated batches.

    Raises:
        PlanError: if the batch size is 1 already.
        Exception: the error itself, if it is not about memory.
    """
    if not is_about_memory(error):
        raise error
    train, devices = plan.recipe.train, plan.machine.devices
    batch, repeated = share_of_step(train, devices)
    if batch == 1:
        raise PlanError(
            "A training step with a single patch does not fit into memory.",
            code="out_of_memory",
            hint="Use a smaller sampling.patch_shape, or narrower network.widths.",
        ) from None
    fewer = batch // 2
    repeated *= math.ceil(batch / fewer)
    where = f" on each of {devices} devices" if devices > 1 else ""
    console.say(
        f"Out of memory: continuing with batch size {fewer} and {repeated} gradient-accumulation "
        f"steps{where}."
    )
    gc.collect()
    if plan.machine.device == "cuda":
        torch.cuda.empty_cache()
    smaller = replace(train, batch_size=fewer * devices, accumulate_grad_batches=repeated)
    return replace(plan, recipe=replace(plan.recipe, train=smaller))
