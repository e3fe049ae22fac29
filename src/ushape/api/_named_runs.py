"""Runs that a command names, and what in them decides a prediction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ushape.errors import ConfigError
from ushape.inference.predictor import Predictor
from ushape.planning.run import Run


def run_folders(run: Path | str | Sequence[Path | str]) -> list[Path]:
    """Return the folders of the runs; the folder of a cross-validation stands for its folds.

    Raises:
        ConfigError: if a run is named twice, or none is named.
    """
    named = [run] if isinstance(run, (str, Path)) else run
    if not isinstance(named, Sequence):
        raise ConfigError(
            f"A run cannot be of type {type(run).__name__}.",
            code="no_run_named",
            hint="Specify the folder that `ushape train` printed.",
        )
    found: list[Path] = []
    for folder in map(Path, named):
        folds = sorted(path for path in folder.glob("fold-*") if Run(path).plan_path.exists())
        found += [folder] if Run(folder).plan_path.exists() or not folds else folds
    twice = [path for path in found if found.count(path) > 1]
    if twice:
        raise ConfigError(
            f"The run {twice[0]} is listed twice.",
            code="run_named_twice",
            hint="List each run once.",
        )
    if not found:
        raise ConfigError(
            "No run was specified.",
            code="no_run_named",
            hint="Specify the folder that `ushape train` printed.",
        )
    return found


def describe_origin(
    folders: Sequence[Path], predictor: Predictor, settings: Iterable[str]
) -> dict[str, Any]:
    """Return what the outputs depend on, for the log of finished images."""
    return {
        "weights": [_run_digest(Run(folder)) for folder in folders],
        "backend": predictor.backends,
        "settings": sorted(settings),
    }


def _run_digest(run: Run) -> str:
    """Return a checksum of what decides a prediction: weights, plan and rule."""
    digest = hashlib.sha256()
    for path in (run.weights_path, run.plan_path, run.tuning_path):
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
