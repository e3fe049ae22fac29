"""The report of `speedrun.py`: ratio of 1 - Dice with its interval, and seconds to a fixed Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 10_000
LEAST_LOSS = 1e-4
"""Smallest 1 - Dice, so that a perfect score does not decide a ratio."""

Losses = Mapping[str, np.ndarray]
"""1 - Dice of A and B by data set: (2, seeds)."""


def print_report(
    results: Sequence[dict[str, Any]], dice: float | None = None, factor: float = 0.98
) -> None:
    """Print a table for each number of minutes.

    Args:
        dice: Validation Dice whose time is reported; None: `factor` times the best of A.
    """
    for side in ("a", "b"):
        labels = sorted({one["variant"] for one in results if one["side"] == side})
        print(f"{side.upper()}: {', '.join(labels) or 'no results'}")
    for minutes in sorted({one["minutes"] for one in results}):
        _print_table([one for one in results if one["minutes"] == minutes], minutes, dice, factor)


def _print_table(
    results: Sequence[dict[str, Any]], minutes: float, dice: float | None, factor: float
) -> None:
    print(f"\n{minutes:g} minutes\n")
    print("| data | seeds | Dice A | Dice B | ratio of 1 - Dice | validation Dice | s, A | s, B |")
    print("|---|---|---|---|---|---|---|---|")
    losses: dict[str, np.ndarray] = {}
    notes = []
    for name in dict.fromkeys(one["data"] for one in results):
        own = [one for one in results if one["data"] == name]
        runs = {(one["side"], one["seed"]): one for one in own if "error" not in one}
        seeds = sorted({seed for _, seed in runs if {("a", seed), ("b", seed)} <= runs.keys()})
        failed = {
            (one["side"], one["seed"]): one["error"]
            for one in own
            if "error" in one and (one["side"], one["seed"]) not in runs
        }
        notes += [f"{name}, {side}, seed {seed}: {text}" for (side, seed), text in failed.items()]
        if not seeds:
            continue
        pairs = [[runs[side, seed] for seed in seeds] for side in ("a", "b")]
        losses[name] = np.array([[1 - one["dice"] for one in side] for side in pairs])
        mean = 1 - losses[name].mean(axis=1)
        goal, seconds = _seconds_to_dice(pairs, dice, factor)
        print(
            f"| {name} | {len(seeds)} | {mean[0]:.4f} | {mean[1]:.4f} "
            f"| {loss_ratio({name: losses[name]}):.3f} | {goal:.3f} "
            f"| {_seconds_text(seconds[0])} | {_seconds_text(seconds[1])} |"
        )
    if losses:
        ratio, (low, high) = loss_ratio(losses), ratio_interval(losses)
        print(
            f"\nGeometric mean of the ratios of {len(losses)} sets: **{ratio:.3f}** "
            f"[{low:.3f}, {high:.3f}] (95 %, resampled over sets and seeds)."
        )
        worst = max(losses, key=lambda name: _log_ratio(losses[name]))
        print(f"Largest ratio: {loss_ratio({worst: losses[worst]}):.3f} ({worst}).")
    loads = [one["load"] for one in results if "load" in one]
    if loads:
        print(f"Load average before each training: {min(loads):.1f} to {max(loads):.1f}.")
    for note in notes:
        print(f"Left out: {note}")


def loss_ratio(losses: Losses) -> float:
    """Return the geometric mean over sets of mean (1 - Dice) of B divided by that of A."""
    return float(np.exp(np.mean([_log_ratio(own) for own in losses.values()])))


def ratio_interval(losses: Losses, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the ratio, resampled over sets and, in them, seeds.

    A and B keep the same resampled seeds, because they share the split of a seed.
    """
    rng, sets = np.random.default_rng(seed), list(losses.values())
    ratios = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        chosen = [sets[place] for place in rng.integers(len(sets), size=len(sets))]
        drawn = [own[:, rng.integers(own.shape[1], size=own.shape[1])] for own in chosen]
        ratios[index] = np.mean([_log_ratio(own) for own in drawn])
    low, high = np.exp(np.quantile(ratios, (0.025, 0.975)))
    return float(low), float(high)


def _log_ratio(losses: np.ndarray) -> float:
    a, b = np.maximum(losses.mean(axis=1), LEAST_LOSS)
    return float(np.log(b / a))


def _seconds_to_dice(
    pairs: Sequence[Sequence[dict[str, Any]]], dice: float | None, factor: float
) -> tuple[float, list[list[float | None]]]:
    """Return the validation Dice to reach, and the seconds to it for each side and seed."""
    if dice is None:
        dice = factor * float(np.mean([max(own for _, own in run["curve"]) for run in pairs[0]]))
    return dice, [[seconds_to(run["curve"], dice) for run in side] for side in pairs]


def seconds_to(curve: Sequence[Sequence[float]], dice: float) -> float | None:
    """Return when a course of (seconds, Dice) first reaches a Dice; None if it does not.

    Between two epochs the Dice is interpolated. Before the first one the time is not known, so the
    first epoch counts.
    """
    for place, (seconds, own) in enumerate(curve):
        if own >= dice:
            if not place:
                return seconds
            before_s, before = curve[place - 1]
            return before_s + (seconds - before_s) * (dice - before) / (own - before)
    return None


def _seconds_text(seconds: Sequence[float | None]) -> str:
    """Return the mean over the seeds that reached the Dice, and how many did not."""
    reached = [one for one in seconds if one is not None]
    if not reached:
        return "not reached"
    missing = len(seconds) - len(reached)
    return f"{np.mean(reached):.0f}" + (f" ({missing} not reached)" if missing else "")
