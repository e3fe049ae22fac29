"""Outcome of the two trials before training from earlier weights (--from)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ushape import config
from ushape.config import resolved
from ushape.errors import ConfigError, RunError
from ushape.formatting import pluralize
from ushape.io.files import read_sealed_json, write_sealed_json
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run

TRIAL_SHARE = 0.125
"""Steps of each of the two trials, relative to those of the training run that follows."""

Origin = Literal["loaded", "usual"]

UsualWeights = Literal["random", "synthetic_pretrained", "encoder"]

NAMES = {
    "random": "random weights",
    "synthetic_pretrained": "the weights of synthetic images",
    "encoder": "the pretrained weights of the encoder",
}
"""Names of the initial weights with which the loaded ones are compared."""


@dataclass(frozen=True, kw_only=True)
class StartDecision:
    """Outcome of the two trials at the beginning of training."""

    RENAMED: ClassVar = {
        "random_dice": "usual_dice",
        "random_steps": "usual_steps",
        "initial=generated": "synthetic_pretrained",
    }

    loaded_dice: float | None
    """Validation Dice after the trial from the loaded weights; None if no validation case has
    foreground."""

    usual_dice: float | None
    """Validation Dice after the trial from the initial weights of training without --from."""

    loaded_ap: float | None = None
    """Average precision of the validation objects after the first trial, if they are learned."""

    usual_ap: float | None = None
    """Average precision of the validation objects after the second trial, if they are learned."""

    loaded_steps: int
    usual_steps: int
    seconds: float
    """Duration of both trials."""

    initial: UsualWeights = "random"
    """Initial weights with which the loaded ones were compared."""

    @property
    def taken(self) -> Origin:
        """Weights with which the training continues; the loaded ones if both are equal or
        unknown."""
        if self.loaded_dice is None or self.usual_dice is None:
            return "loaded"
        if self.loaded_ap is None or self.usual_ap is None:
            is_loaded = self.loaded_dice >= self.usual_dice
        else:
            is_loaded = (self.loaded_ap, self.loaded_dice) >= (self.usual_ap, self.usual_dice)
        return "loaded" if is_loaded else "usual"

    @property
    def text(self) -> str:
        steps = pluralize(self.loaded_steps, "step")
        if self.usual_steps != self.loaded_steps:
            steps += f" and {pluralize(self.usual_steps, 'step')}"
        taken = "the loaded weights" if self.taken == "loaded" else NAMES[self.initial]
        if self.loaded_dice is None or self.usual_dice is None:
            return (
                f"Trials of {steps}: they cannot be compared, because no validation image has "
                f"foreground. The training continues from the trial with {taken}."
            )
        objects = ""
        if self.loaded_ap is not None and self.usual_ap is not None:
            objects = (
                f"average precision of the objects {self.loaded_ap:.4f} from the loaded weights, "
                f"{self.usual_ap:.4f} from {NAMES[self.initial]}; "
            )
        return (
            f"Trials of {steps}: {objects}validation Dice {self.loaded_dice:.4f} from the loaded "
            f"weights, {self.usual_dice:.4f} from {NAMES[self.initial]}. The training continues "
            f"from the trial with {taken}."
        )


def usual_weights(recipe: Recipe) -> UsualWeights:
    """Return which initial weights are used if training does not start from earlier ones."""
    return "encoder" if recipe.network.is_pretrained else resolved(recipe.train.initial_weights)


def save_decision(run: Run, decision: StartDecision) -> None:
    """Write the decision, which is final: resumed training reads it."""
    write_sealed_json(run.start_decision_path, config.to_dict(decision))


def load_decision(run: Run) -> StartDecision | None:
    """Return the decision of a run, or None if the trials have not ended or were not needed.

    Raises:
        RunError: if the file is damaged.
    """
    path = run.start_decision_path
    if not path.exists():
        return None
    hint = "Copy the complete run folder again."
    values = read_sealed_json(path, RunError, code="damaged_run", hint=hint)
    try:
        return config.from_dict(StartDecision, values, source=str(path))
    except ConfigError as error:
        raise RunError(error.message, code="damaged_run", hint=hint) from None


def start_lines(run: Run) -> list[str]:
    """Return what the report says about the trials of a run."""
    decision = load_decision(run)
    return [] if decision is None else [decision.text]
