"""ushape: from a folder of images and masks to a segmentation model you can trust.

from ushape._version import __version__

run = ushape.train("my_images")
ushape.predict(run.folder, ["new_images"], output="masks")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ushape._version import __version__
from ushape.errors import ConfigError, DataError, PlanError, RunError, UshapeError

if TYPE_CHECKING:
    from ushape.api.check import check as check
    from ushape.api.cross_validate import cross_validate as cross_validate
    from ushape.api.evaluate import evaluate as evaluate
    from ushape.api.example import example as example
    from ushape.api.fetch import fetch as fetch
    from ushape.api.learning_curve import learning_curve as learning_curve
    from ushape.api.load import load as load
    from ushape.api.lr import lr as lr
    from ushape.api.plan import plan as plan
    from ushape.api.predict import predict as predict
    from ushape.api.preview import preview as preview
    from ushape.api.preview import weights as weights
    from ushape.api.recipes import recipes as recipes
    from ushape.api.report import compare as compare
    from ushape.api.report import report as report
    from ushape.api.train import resume as resume
    from ushape.api.train import train as train


_MODULES = {
    "check": "ushape.api.check",
    "compare": "ushape.api.report",
    "cross_validate": "ushape.api.cross_validate",
    "evaluate": "ushape.api.evaluate",
    "example": "ushape.api.example",
    "fetch": "ushape.api.fetch",
    "learning_curve": "ushape.api.learning_curve",
    "load": "ushape.api.load",
    "lr": "ushape.api.lr",
    "plan": "ushape.api.plan",
    "predict": "ushape.api.predict",
    "preview": "ushape.api.preview",
    "recipes": "ushape.api.recipes",
    "report": "ushape.api.report",
    "resume": "ushape.api.train",
    "train": "ushape.api.train",
    "weights": "ushape.api.preview",
}
"""The module of each public function; loaded at its first use, and torch with it."""


__all__ = [
    "ConfigError",
    "DataError",
    "PlanError",
    "RunError",
    "UshapeError",
    "__version__",
    *_MODULES,
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'ushape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
