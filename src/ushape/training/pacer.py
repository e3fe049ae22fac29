"""Callback that keeps the time limit of a training, on machines whose speed changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer

from ushape.planning.plan import Plan
from ushape.planning.timing import FROZEN_SHARE
from ushape.training.optimizers import Schedule

VALIDATION_SHARE = 0.06
"""Share of the time that validation takes in a plan; used until a validation has been timed."""


class Pacer(Callback):
    """End the training in time: change the number of remaining steps if the speed has changed.

    The speed is that of the latest steps, so that neither a slow start nor a machine that became
    busy is averaged away; validation is timed separately. The learning-rate schedule spans the new
    number of steps, so that its end is reached in any case. At least one step is made. Without a
    time limit, training ends after the planned number of steps.

    Args:
        schedule: Schedule of the module; its `total_steps` is changed.
        budget_s: Seconds from now until training must have ended; None: no limit. The attribute of
            this name includes the seconds before an interruption, once the state is restored.
        evaluation_s: Seconds that the plan reserves for the evaluation after the training. If steps
            take longer than planned, the evaluation will as well, and more time is left for it.
        has_frozen_steps: Whether the first steps do not change a pretrained encoder, so that they
            are faster than the others.
    """

    TOLERANCE = 0.04
    """Relative difference from the planned number of steps above which it is changed."""

    EVERY = 0.05
    """Fraction of the budget after which the speed is checked, in addition to each epoch end."""

    LATEST = 8
    """Smallest number of latest steps whose mean is the speed; later, a quarter of all steps."""

    def __init__(
        self,
        schedule: Schedule,
        budget_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        evaluation_s: float = 0.0,
        has_frozen_steps: bool = False,
    ):
        self.schedule, self.budget_s, self.clock = schedule, budget_s, clock
        self.revisions: list[tuple[int, int]] = []
        """Steps at which the number of steps was changed, each with the new number."""
        self._planned_steps = max(1, schedule.total_steps)
        self._evaluation_s = evaluation_s
        self.has_frozen_steps = has_frozen_steps
        self._began = clock()
        self._used_before = 0.0
        self._step_times: list[float] = []
        self._are_frozen = False
        """Whether the steps that were timed did not change the encoder."""
        self._epoch_steps = 0
        """Number of steps of a whole epoch, once one has ended."""
        self._validation_s: float | None = None
        self._last = self._began
        self._last_step = self._epoch_start = 0
        self._revised_at = 0.0
        self._is_training = False

    @property
    def has_started(self) -> bool:
        """Whether training has begun, after a checkpoint was restored."""
        return self._is_training

    @property
    def used_s(self) -> float:
        """Seconds of training, including those before an interruption."""
        return self._used_before + self.clock() - self._began

    @property
    def step_s(self) -> float | None:
        """Mean duration of the latest steps in seconds; None before a step was timed.

        The first step is left out, because it also allocates memory and selects kernels.
        """
        latest = self._step_times[1:][-max(self.LATEST, len(self._step_times) // 4) :]
        return sum(latest) / len(latest) if latest else None

    def seconds_left(self, trainer: Trainer) -> float | None:
        """Estimate the remaining seconds by the latest speed, including validation."""
        step_s = self.step_s
        if step_s is None:
            return None
        remaining = self.schedule.total_steps - trainer.global_step
        return remaining * (self._mean_step_s(step_s, trainer) + self._validation_per_step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_training = True
        if self.revisions:
            self.schedule.total_steps = self.revisions[-1][1]
        self._last = self.clock()
        self._last_step = self._epoch_start = trainer.global_step
        self._stop_if_over(trainer)  # The training was killed after its last step.

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step > self._last_step:
            now = self.clock()
            is_frozen = self.has_frozen_steps and self.schedule.freezes_encoder(self._last_step)
            if is_frozen != self._are_frozen:
                self._step_times, self._are_frozen = [], is_frozen
            self._step_times.append(now - self._last)
            self._last, self._last_step = now, trainer.global_step
            is_due = self.used_s - self._revised_at > self.EVERY * (self.budget_s or 0.0)
            if is_due or trainer.global_step >= self.schedule.total_steps:
                self._revise(trainer)
        self._stop_if_over(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Validation lies between the last batch and this call.
        now = self.clock()
        self._validation_s, self._last = now - self._last, now
        self._epoch_steps = max(self._epoch_steps, trainer.global_step - self._epoch_start)
        self._epoch_start = trainer.global_step
        self._revise(trainer)
        self._stop_if_over(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"used_s": self.used_s, "revisions": self.revisions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # The caller has subtracted what was used before, since only it knows the time of an attempt
        # that ran out of memory after its last checkpoint.
        self._used_before = state_dict["used_s"]
        if self.budget_s is not None:
            self.budget_s += self._used_before
        self.revisions = [(int(step), int(total)) for step, total in state_dict["revisions"]]

    def _mean_step_s(self, step_s: float, trainer: Trainer) -> float:
        """Return the mean duration of the remaining steps, some of which keep the encoder.

        Args:
            step_s: Mean duration of the latest steps.
        """
        remaining = self.schedule.total_steps - trainer.global_step
        if not self.has_frozen_steps or remaining < 1:
            return step_s
        share = min(self.schedule.frozen_steps(trainer.global_step) / remaining, 1.0)
        whole_s = step_s / FROZEN_SHARE if self._are_frozen else step_s
        return share * FROZEN_SHARE * whole_s + (1 - share) * whole_s

    @property
    def _planned_step_s(self) -> float:
        """Seconds of a step that the plan assumes; 0 without a time limit."""
        return (self.budget_s or 0.0) / self._planned_steps

    @property
    def _validation_per_step(self) -> float:
        if self._validation_s is None or not self._epoch_steps:
            return 0.0
        return self._validation_s / self._epoch_steps

    @property
    def _limit_s(self) -> float:
        """Seconds after which the training must have ended."""
        assert self.budget_s is not None
        step_s = self.step_s
        if step_s is None or len(self._step_times) < self.LATEST or not self._planned_step_s:
            return self.budget_s
        slower = (step_s + self._validation_per_step) / self._planned_step_s - 1
        return self.budget_s - min(max(0.0, slower) * self._evaluation_s, 0.5 * self.budget_s)

    def _revise(self, trainer: Trainer) -> None:
        """Change the number of steps if the planned one would miss the time limit."""
        self._revised_at = self.used_s
        step_s = self.step_s
        if self.budget_s is None or step_s is None or trainer.should_stop:
            return
        if not trainer.is_global_zero:  # The first process decides for all of them.
            return
        remaining = self.schedule.total_steps - trainer.global_step
        step_s = self._mean_step_s(step_s, trainer)
        fewest, most = self._possible_steps(step_s, trainer.global_step - self._epoch_start)
        possible = min(max(remaining, fewest), most)
        if possible != remaining and abs(possible - remaining) > self.TOLERANCE * remaining:
            self.schedule.total_steps = max(trainer.global_step + possible, 1)
            self.revisions.append((trainer.global_step, self.schedule.total_steps))

    def _possible_steps(self, step_s: float, done: int) -> tuple[int, int]:
        """Return how many steps fit at least and at most; they differ before a validation.

        Args:
            done: Number of steps of the current epoch that are done.
        """
        allowed = max(0.0, self._limit_s - self.used_s)
        each = max(step_s + self._validation_per_step, 1e-9)
        if self._validation_s is None:
            return int((1 - VALIDATION_SHARE) * allowed / each), int(allowed / each)
        # The last epoch may be shorter than the others, but it is validated as well.
        partial = self._validation_s if self._epoch_steps else 0.0
        possible = int(max(0.0, allowed - partial) / each)
        whole = int(allowed / each)
        ends_whole = self._epoch_steps and (done + whole) % self._epoch_steps == 0
        return (whole, whole) if ends_whole else (possible, possible)

    def _stop_if_over(self, trainer: Trainer) -> None:
        """End the training, but not before its first step: without it, no weights are saved."""
        if not trainer.is_global_zero:
            return
        is_late = (
            self.budget_s is not None
            and trainer.global_step > 0
            and self.used_s + (self._validation_s or 0.0) > self._limit_s
        )
        if is_late or trainer.global_step >= self.schedule.total_steps:
            trainer.should_stop = True


def pacer_of(
    plan: Plan,
    schedule: Schedule,
    budget_s: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> Pacer:
    """Return the callback that keeps the time limit of a training.

    Args:
        schedule: Schedule of the module.
        budget_s: Seconds from now until training must have ended; None: no limit.
    """
    train = plan.recipe.train
    return Pacer(
        schedule,
        budget_s,
        clock,
        evaluation_s=plan.evaluation_s,
        has_frozen_steps=plan.recipe.network.is_pretrained and train.encoder_freeze_fraction > 0,
    )
