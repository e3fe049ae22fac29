"""Short trials before training, such as those from loaded and from the usual weights.

They end before training itself begins. The decision is a file of the run, so that interrupted
training continues from the same weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from ushape.config import resolved
from ushape.console import Console
from ushape.errors import UshapeError
from ushape.planning.plan import Plan
from ushape.planning.recipe import MAX_SEED
from ushape.planning.run import Run
from ushape.planning.start import initial_weights
from ushape.planning.start_decision import (
    NAMES,
    TRIAL_SHARE,
    Origin,
    StartDecision,
    load_decision,
    save_decision,
    usual_weights,
)
from ushape.planning.weights import read_weights, save_weights
from ushape.training.trainer import FitResult

MIN_TRIAL_STEPS = 20
"""Number of steps of a trial before short training, unless training itself has fewer."""


Weights = Mapping[str, Tensor]
"""Tensors of a network by name."""


class Train(Protocol):
    """Trains as planned in a run folder, and continues there after an interruption.

    The budget is the number of seconds from the call until training must have ended, regardless of
    the time before an interruption; None: no limit.
    """

    def __call__(
        self,
        plan: Plan,
        run: Run,
        initial: Weights | None,
        budget_s: float | None,
        resume: bool = True,
        /,
    ) -> FitResult: ...


def decide_start(
    plan: Plan, run: Run, train: Train, budget_s: float | None, console: Console
) -> StartDecision:
    """Return the stored decision, or run the trials that have not ended, and store their outcome.

    Both trials use the same patches in the same order, which differ from those of training.

    Args:
        budget_s: Seconds for trials and training together, including those before an interruption;
            None: no limit.

    Raises:
        KeyboardInterrupt: if Ctrl-C ended a trial.
        RunError: if the weights to start from are missing, damaged or have changed.
    """
    decision = load_decision(run)
    if decision is None:
        share = None if budget_s is None else budget_s * TRIAL_SHARE / (1 + 2 * TRIAL_SHARE)
        for origin in ("loaded", "usual"):
            usual = NAMES[usual_weights(plan.recipe)]
            console.say(f"Trial from {'the loaded weights' if origin == 'loaded' else usual}:")
            trial = _trial(run, origin)
            needs_loaded = origin == "loaded" and not trial.has_ended(plan_trial(plan))
            initial = keep_initial_weights(plan, run) if needs_loaded else None
            run_trial(plan, trial, run, train, initial, share)
        decision = _compare(plan, run)
        save_decision(run, decision)
    console.say(decision.text)
    _remove_leftovers(run, decision)
    return decision


def weights_after_trials(run: Run, decision: StartDecision) -> dict[str, Tensor]:
    """Return the weights with which training begins."""
    return read_weights(_trial(run, decision.taken).weights_path)


def trained_s(run: Run) -> float:
    """Return the seconds that the epochs of a run and of its trials have taken so far."""
    decision = load_decision(run)
    if decision is not None:
        return run.trained_s + decision.seconds
    return run.trained_s + _trial(run, "loaded").trained_s + _trial(run, "usual").trained_s


def plan_trial(plan: Plan, epochs: int | None = None) -> Plan:
    """Return the plan of a trial: an eighth of the steps, with patches of another seed.

    No time is reserved for an evaluation, since none follows a trial.

    Args:
        epochs: Number of epochs, each of which ends with a validation (default: an eighth).
    """
    recipe = plan.recipe
    train = recipe.train
    assert train.epochs is not None
    whole = train.epochs * resolved(train.steps_per_epoch)
    steps = min(whole, max(MIN_TRIAL_STEPS, round(TRIAL_SHARE * whole)))
    epochs = max(1, min(epochs or round(TRIAL_SHARE * train.epochs), steps))
    short = replace(
        train,
        epochs=epochs,
        steps_per_epoch=-(-steps // epochs),
        patience=None,
        save_every_epoch=False,
    )
    recipe = replace(recipe, seed=(recipe.seed + 1) % MAX_SEED, train=short)
    return replace(plan, recipe=recipe, evaluation_s=0.0)


def _trial(run: Run, origin: Origin) -> Run:
    folder = run.start_decision_path.with_name(origin)
    older = folder.with_name("random")  # Name of the folder in earlier versions.
    return Run(older if origin == "usual" and older.exists() and not folder.exists() else folder)


def run_trial(
    plan: Plan,
    trial: Run,
    run: Run,
    train: Train,
    initial: Weights | None,
    budget_s: float | None,
) -> None:
    """Train an eighth of a plan in a separate folder, unless this was done before.

    Args:
        trial: Folder of the trial, below that of the run.
        run: Run that the trial belongs to.
        initial: Weights to start from by name; None: those of the plan.
        budget_s: Seconds for the whole trial, including those before an interruption; None: no
            limit.

    Raises:
        KeyboardInterrupt: if Ctrl-C ended the trial.
    """
    own = plan_trial(plan)
    if trial.has_ended(own):
        return
    trial.folder.mkdir(parents=True, exist_ok=True)
    left_s = None if budget_s is None else max(1.0, budget_s - trial.trained_s)
    try:
        result = train(own, trial, initial, left_s)
    except UshapeError as error:  # Only the run itself can be resumed.
        if error.continuation:
            error.continuation = run.continuation
        raise
    if result.was_interrupted:
        shutil.rmtree(trial.folder)
        raise KeyboardInterrupt
    trial.note_end(own)


def keep_initial_weights(plan: Plan, run: Run) -> dict[str, Tensor]:
    """Store the weights to start from in the run, and return them: their file may be removed."""
    path = run.start_decision_path.with_name("initial.safetensors")
    if not path.exists():
        save_weights(path, initial_weights(plan), {})
    return read_weights(path)


def _compare(plan: Plan, run: Run) -> StartDecision:
    loaded, usual = _trial(run, "loaded"), _trial(run, "usual")
    rows = [trial.load_metrics() for trial in (loaded, usual)]
    facts = [trial.weight_facts() for trial in (loaded, usual)]
    return StartDecision(
        loaded_dice=facts[0]["validation_dice"],
        usual_dice=facts[1]["validation_dice"],
        loaded_ap=facts[0].get("validation_ap"),
        usual_ap=facts[1].get("validation_ap"),
        loaded_steps=int(rows[0][-1]["step"]),
        usual_steps=int(rows[1][-1]["step"]),
        seconds=sum(float(row["seconds"]) for own in rows for row in own),
        initial=usual_weights(plan.recipe),
    )


def _remove_leftovers(run: Run, decision: StartDecision) -> None:
    """Remove what is not needed after the decision: all weights except those that were chosen."""
    folder = run.start_decision_path.parent
    (folder / "initial.safetensors").unlink(missing_ok=True)
    for origin in ("loaded", "usual"):
        trial = _trial(run, origin)
        shutil.rmtree(trial.checkpoint_path.parent, ignore_errors=True)
        if origin != decision.taken:
            trial.weights_path.unlink(missing_ok=True)
