"""Description of a served model: classes, mask values, channels, scores and versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ushape._version import __version__
from ushape.errors import RunError
from ushape.evaluation.storage import load_report
from ushape.inference.predictor import Predictor
from ushape.io.files import real_path


def describe_model(predictor: Predictor, folders: Sequence[Path]) -> dict[str, Any]:
    """Return what a client needs to know about a model.

    Args:
        folders: Folders of the runs; their names are part of the description, their paths are not.
    """
    plan = predictor.plan
    space = plan.preprocessing.space
    return {
        "name": real_path(folders[0]).name,
        "runs": [real_path(folder).name for folder in folders],
        "classes": [
            {"name": name, "value": value}
            for name, value in zip(space.names, space.values, strict=True)
        ],
        "regions": [region.name for region in space.regions],
        "probabilities": list(space.channel_names),
        "channels": plan.preprocessing.channels,
        "dimensions": plan.image_dims,
        "mask": {
            "suffix": plan.encoding.suffix,
            "kind": plan.encoding.kind,
            "type": plan.encoding.dtype,
        },
        "scores": [_scores_of(folder) for folder in folders],
        "device": predictor.device,
        "backends": predictor.backends,
        "versions": {"ushape": __version__, "torch": torch.__version__},
    }


def _scores_of(folder: Path) -> list[dict[str, Any]] | None:
    """Return the mean scores of each class with their 95% intervals; None if there are none."""
    try:
        summary = load_report(folder).summary
    except RunError:
        return None
    return [
        {
            "class": own.name,
            "groups": own.groups_with_truth,
            "means": {
                name: {
                    "value": mean.value,
                    "interval": [mean.interval.low, mean.interval.high] if mean.interval else None,
                }
                for name, mean in own.means.items()
            },
        }
        for own in summary.classes
    ]
