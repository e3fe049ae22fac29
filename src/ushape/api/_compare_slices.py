"""Short trials in 2D, 2.5D and 3D, by which a training on volumes decides between them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

from ushape.api._trainer import open_cases, training_budget_s
from ushape.console import Clock, Console
from ushape.data.scan import DatasetStats
from ushape.planning.planner import Planned
from ushape.planning.rules.slices import Trial, best_trial, describe_trials, name_slices
from ushape.planning.run import Run
from ushape.planning.start_decision import TRIAL_SHARE
from ushape.training.trials import run_trial

Replan = Callable[[int | None], Planned]
"""Returns the plan with a value of preprocessing.slices, for the same split."""


def compare_slices(
    found: DatasetStats,
    planned: Planned,
    replan: Replan,
    run: Run,
    clock: Clock,
    console: Console,
) -> Planned:
    """Train each candidate of a plan for the same short time, and return the plan of the best one.

    A plan without candidates is returned as it is. The trials are removed.

    Raises:
        KeyboardInterrupt: if Ctrl-C ended a trial.
        DataError: if cases cannot be loaded.
    """
    count = len(planned.compared)
    whole_s = training_budget_s(planned.plan, clock.elapsed_s)
    if not count or whole_s is None:
        return planned
    budget_s = whole_s * TRIAL_SHARE / (1 + count * TRIAL_SHARE)
    folder = run.folder / "trials"
    trials = []
    for slices in planned.compared:
        console.say(f"Trial in {name_slices(slices)}, {budget_s:.0f} s:")
        trial = Run(folder / name_slices(slices).replace(" ", "_"))
        facts = _run_one(found, replan(slices), trial, run, budget_s, console)
        trials.append(Trial(slices, facts["validation_dice"], facts.get("validation_ap")))
    shutil.rmtree(folder)
    text = describe_trials(trials, budget_s, planned.results[0].fact)
    final = replan(best_trial(trials).slices)
    results = (replace(final.results[0], text=text), *final.results[1:])
    plan = replace(final.plan, reasons=tuple(result.text for result in results))
    return replace(final, plan=plan, results=results)


def _run_one(
    found: DatasetStats,
    planned: Planned,
    trial: Run,
    run: Run,
    budget_s: float,
    console: Console,
) -> dict[str, float]:
    """Train one candidate; return what is stored with its best weights."""
    by_id = {fact.case.id: fact for fact in found.facts}
    splits = planned.splits
    training, validation = ([by_id[i] for i in ids] for ids in (splits.train, splits.validation))
    train_in, _ = open_cases(planned.plan, training, validation, console)
    run_trial(planned.plan, trial, run, train_in, None, budget_s)
    return trial.weight_facts()
