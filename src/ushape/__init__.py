"""ushape: from a folder of images and masks to a segmentation model you can trust.

import ushape

run = ushape.train("my_images")
ushape.predict(run.folder, ["new_images"], output="masks")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ushape.errors import ConfigError, DataError, PlanError, RunError, UshapeError

if TYPE_CHECKING:
    from ushape.api import evaluate, example, recipes, resume, train
    from ushape.checking.verb import check
    from ushape.cross_validation import cross_validate
    from ushape.fetching.fetch import fetch
    from ushape.intent import plan
    from ushape.learning_curves import learning_curve
    from ushape.looking import lr, preview, weights
    from ushape.model import load
    from ushape.predicting import predict
    from ushape.reporting import compare, report

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DataError",
    "PlanError",
    "RunError",
    "UshapeError",
    "check",
    "compare",
    "cross_validate",
    "evaluate",
    "example",
    "fetch",
    "learning_curve",
    "load",
    "lr",
    "plan",
    "predict",
    "preview",
    "recipes",
    "report",
    "resume",
    "train",
    "weights",
]


_ROOMS = {
    "check": "ushape.checking.verb",
    "compare": "ushape.reporting",
    "cross_validate": "ushape.cross_validation",
    "fetch": "ushape.fetching.fetch",
    "learning_curve": "ushape.learning_curves",
    "lr": "ushape.looking",
    "load": "ushape.model",
    "plan": "ushape.intent",
    "predict": "ushape.predicting",
    "preview": "ushape.looking",
    "report": "ushape.reporting",
    "weights": "ushape.looking",
}
"""Where verbs live that are not in ushape.api."""


def __getattr__(name: str) -> Any:
    """Loads the verbs, and with them torch, at their first use."""
    if name in __all__:
        return getattr(import_module(_ROOMS.get(name, "ushape.api")), name)
    raise AttributeError(f"module 'ushape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
