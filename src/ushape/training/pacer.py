"""Callback that keeps the time limit of training, on machines whose speed changes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer

from ushape.config import resolved
from ushape.planning.plan import Plan
from ushape.planning.rules.duration import MOST_VALIDATION, VALIDATION_SHARE
from ushape.planning.timing import FROZEN_SHARE
from ushape.training.optimizers import Schedule

LAST_VALIDATION = 0.11
"""Share of the remaining time above which the last validation is skipped; a bit more than
`MOST_VALIDATION`, so that one measured validation may differ from the next."""

NEVER = 2**31
"""Number of epochs between two validations with which Lightning makes none."""


class Pacer(Callback):
    """End the training in time: change the number of remaining steps if the speed has changed.

    The speed is that of the latest steps, so that a slow start does not distort it and a machine
    that became busy is noticed; validation is timed separately. The learning-rate schedule spans
    the new number of steps, so that its end is reached in any case. At least one step is made.
    Without a time limit, training ends after the planned number of steps.

    Validations after the first one take at most about a tenth of the remaining time; the others are
    skipped. If an evaluation follows, this includes the last one if it alone takes longer.

    Args:
        schedule: Schedule of the module; its `total_steps` is changed.
        budget_s: Seconds from now until training must have ended; None: no limit. The attribute of
            this name includes the seconds before an interruption, once the state is restored.
        evaluation_s: Seconds that the plan reserves for the evaluation after training; 0: none
            follows. If steps take longer than planned, the evaluation will as well, and more time
            is left for it.
        validation_s: Seconds of a validation in the plan; 0: unknown.
        epoch_steps: Number of steps of an epoch in the plan; 0: unknown until an epoch has ended.
        has_frozen_steps: Whether a pretrained encoder is frozen in the first steps, so that they
            are faster than the others.
    """

    TOLERANCE = 0.04
    """Relative difference from the planned number of steps above which it is changed."""

    EVERY = 0.05
    """Fraction of the budget after which the speed is checked, in addition to each epoch end."""

    LATEST = 8
    """Minimum number of latest steps whose mean is the speed; later, a quarter of all steps."""

    def __init__(
        self,
        schedule: Schedule,
        budget_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        evaluation_s: float = 0.0,
        validation_s: float = 0.0,
        epoch_steps: int = 0,
        has_frozen_steps: bool = False,
    ):
        self.schedule, self.budget_s, self.clock = schedule, budget_s, clock
        self.revisions: list[tuple[int, int]] = []
        """Steps at which the number of steps was changed, each with the new number."""
        self._planned_steps = max(1, schedule.total_steps)
        self._evaluation_s, self._planned_validation_s = evaluation_s, validation_s
        self.has_frozen_steps = has_frozen_steps
        self._began = clock()
        self._used_before = 0.0
        self._step_times: list[float] = []
        self._are_frozen = False
        """Whether the steps that were timed did not change the encoder."""
        self._epoch_steps = epoch_steps
        # Steps get at least half of the time, however long the first validation takes.
        self._validation_s = min(validation_s, 0.5 * (budget_s or math.inf)) or None
        """Expected seconds of a validation: those of the latest one, or of the plan."""
        self._has_validated = self._leaves_out_last = False
        self._last = self._began
        self._last_step = self._epoch_start = self._validated_step = 0
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
        validations = 0 if self._leaves_out_last else math.ceil(remaining / self._period(step_s))
        validation_s = validations * (self._validation_s or 0.0)
        return remaining * self._mean_step_s(step_s, trainer) + validation_s

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_training = True
        if self.revisions:
            self.schedule.total_steps = self.revisions[-1][1]
        self._last = self.clock()
        self._last_step = self._epoch_start = trainer.global_step
        self._validated_step = min(self._validated_step, trainer.global_step)
        self._stop_if_over(trainer)  # The training was killed after its last step.

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        was_stopped = trainer.should_stop  # By an interrupt, not because the time is over.
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
        is_due = was_stopped or self._is_validation_due(trainer)
        trainer.check_val_every_n_epoch = 1 if is_due else NEVER

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Validation lies between the last batch and this call.
        now, is_validated = self.clock(), trainer.check_val_every_n_epoch == 1
        self._epoch_steps = max(self._epoch_steps, trainer.global_step - self._epoch_start)
        self._epoch_start = trainer.global_step
        if is_validated:
            self._validation_s, self._has_validated = now - self._last, True
            self._validated_step = trainer.global_step
            self._leaves_out_last = self._is_last_too_long(self._validation_s)
        self._last = now
        self._revise(trainer)
        if is_validated:  # Otherwise a last step is made, and its weights are validated.
            self._stop_if_over(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {
            "used_s": self.used_s,
            "revisions": self.revisions,
            "validation_s": self._validation_s if self._has_validated else None,
            "validated_step": self._validated_step,
            "leaves_out_last": self._leaves_out_last,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # The caller has subtracted what was used before, since only it knows the time of an attempt
        # that ran out of memory after its last checkpoint.
        self._used_before = state_dict["used_s"]
        if self.budget_s is not None:
            self.budget_s += self._used_before
        self.revisions = [(int(step), int(total)) for step, total in state_dict["revisions"]]
        if state_dict.get("validation_s") is not None:  # Earlier versions did not store it.
            self._validation_s, self._has_validated = state_dict["validation_s"], True
            self._validated_step = state_dict["validated_step"]
            self._leaves_out_last = state_dict["leaves_out_last"]

    def _mean_step_s(self, step_s: float, trainer: Trainer) -> float:
        """Return the mean duration of the remaining steps, in some of which the encoder is frozen.

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
        """Seconds of a step that the plan assumes, validation excluded; 0 without a time limit."""
        validations = math.ceil(self._planned_steps / self._epoch_steps) if self._epoch_steps else 0
        training_s = (self.budget_s or 0.0) - validations * self._planned_validation_s
        return max(0.0, training_s) / self._planned_steps

    @property
    def _limit_s(self) -> float:
        """Seconds after which training must have ended."""
        assert self.budget_s is not None
        step_s = self.step_s
        if step_s is None or len(self._step_times) < self.LATEST or not self._planned_step_s:
            return self.budget_s
        slower = step_s / self._planned_step_s - 1
        return self.budget_s - min(max(0.0, slower) * self._evaluation_s, 0.5 * self.budget_s)

    def _period(self, step_s: float) -> int:
        """Return the number of steps between two validations, a multiple of an epoch.

        Args:
            step_s: Mean duration of a step.
        """
        if not self._epoch_steps:
            return self._planned_steps
        if not self._has_validated or self.budget_s is None:
            return self._epoch_steps
        return self._epoch_steps * max(1, math.ceil(self._spacing(step_s) / self._epoch_steps))

    def _spacing(self, step_s: float) -> float:
        """Return how many steps take so long that a validation has its share of the time."""
        return (self._validation_s or 0.0) * (1 / MOST_VALIDATION - 1) / max(step_s, 1e-9)

    def _is_validation_due(self, trainer: Trainer) -> bool:
        """Return whether there is a validation if the epoch, or training, ends now."""
        step_s = self.step_s
        if self.budget_s is None or not self._has_validated or step_s is None:
            return True
        if trainer.should_stop or self._leaves_out_last:
            return not self._leaves_out_last
        since = trainer.global_step - self._validated_step
        ahead = self.schedule.total_steps - trainer.global_step
        return min(since, ahead) >= self._spacing(step_s)

    def _is_last_too_long(self, validation_s: float) -> bool:
        """Return whether the remaining steps are too short for another validation.

        A trial, which is not followed by an evaluation, is judged by its validation.
        """
        if self.budget_s is None or not self._evaluation_s:
            return False
        return validation_s > LAST_VALIDATION * max(0.0, self._limit_s - self.used_s)

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
        fewest, most = self._possible_steps(step_s, trainer.global_step)
        possible = min(max(remaining, fewest), most)
        if possible != remaining and abs(possible - remaining) > self.TOLERANCE * remaining:
            self.schedule.total_steps = max(trainer.global_step + possible, 1)
            self.revisions.append((trainer.global_step, self.schedule.total_steps))

    def _possible_steps(self, step_s: float, step: int) -> tuple[int, int]:
        """Return the minimum and maximum number of steps that fit; they differ before a validation.

        Args:
            step: Number of steps that are done.
        """
        allowed, step_s = max(0.0, self._limit_s - self.used_s), max(step_s, 1e-9)
        if self._validation_s is None:
            return int((1 - VALIDATION_SHARE) * allowed / step_s), int(allowed / step_s)
        if self._leaves_out_last:
            return int(allowed / step_s), int(allowed / step_s)
        period = self._period(step_s)
        done = (
            step - (self._validated_step if self._has_validated else self._epoch_start)
        ) % period
        fitting = fitting_steps(allowed, step_s, self._validation_s, period=period, done=done)
        if self._has_validated:
            return fitting, fitting
        return fitting, max(0, int((allowed - self._validation_s) / step_s))

    @property
    def _last_validation_s(self) -> float:
        """Seconds that are kept for the last validation."""
        return 0.0 if self._leaves_out_last else self._validation_s or 0.0

    def _stop_if_over(self, trainer: Trainer) -> None:
        """End training, but not before its first step: without it, no weights are saved."""
        if not trainer.is_global_zero:
            return
        is_late = (
            self.budget_s is not None
            and trainer.global_step > 0
            and self.used_s + self._last_validation_s > self._limit_s
        )
        if is_late or trainer.global_step >= self.schedule.total_steps:
            trainer.should_stop = True


def fitting_steps(
    allowed_s: float, step_s: float, validation_s: float, *, period: int, done: int
) -> int:
    """Return how many steps fit into a time, with a validation after each period and at the end.

    Args:
        allowed_s: Seconds for steps and validations.
        period: Number of steps between two validations.
        done: Number of steps since the last validation, less than a period.
    """

    def until(validations: int) -> int:
        """Return how many steps fit with at most this number of validations."""
        left_s = allowed_s - validations * validation_s
        return min(validations * period - done, int(left_s / step_s))

    whole = (allowed_s + done * step_s) / (period * step_s + validation_s)
    return max(0, until(math.floor(whole)), until(math.floor(whole) + 1))


def pacer_of(
    plan: Plan,
    schedule: Schedule,
    budget_s: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> Pacer:
    """Return the callback that keeps the time limit of training.

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
        validation_s=plan.validation_s,
        epoch_steps=resolved(train.steps_per_epoch),
        has_frozen_steps=plan.recipe.network.is_pretrained and train.encoder_freeze_fraction > 0,
    )
