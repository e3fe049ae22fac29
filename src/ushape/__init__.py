"""ushape: U-Net segmentation, from a folder of images and masks to an evaluated model.

import ushape

result = ushape.train("my_images")
ushape.predict(result.folder, ["new_images"], output="masks")

Each function prints what it does. `quiet=True` silences one call, and
`logging.getLogger("ushape").setLevel("WARNING")` all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ushape._version import __version__
from ushape.api import FUNCTIONS, load_function
from ushape.errors import ConfigError, DataError, PlanError, RunError, UshapeError

if TYPE_CHECKING:  # Type checkers, editors and the website do not know the table FUNCTIONS.
    from ushape.api.check import check as check
    from ushape.api.cross_validate import cross_validate as cross_validate
    from ushape.api.evaluate import evaluate as evaluate
    from ushape.api.example import example as example
    from ushape.api.export import export_model as export_model
    from ushape.api.fetch import fetch as fetch
    from ushape.api.learning_curve import learning_curve as learning_curve
    from ushape.api.load import load as load
    from ushape.api.lr import find_learning_rate as find_learning_rate
    from ushape.api.plan import plan as plan
    from ushape.api.predict import predict as predict
    from ushape.api.predict_zarr import predict_zarr as predict_zarr
    from ushape.api.preview import preview as preview
    from ushape.api.preview import weight_map as weight_map
    from ushape.api.recipes import recipes as recipes
    from ushape.api.report import compare as compare
    from ushape.api.report import report as report
    from ushape.api.serve import serve as serve
    from ushape.api.studio import open_studio as open_studio
    from ushape.api.train import resume as resume
    from ushape.api.train import train as train
    from ushape.api.tune import tune as tune

_FORMER_NAMES = {"weights": "weight_map", "lr": "find_learning_rate"}

__all__ = [
    "ConfigError",
    "DataError",
    "PlanError",
    "RunError",
    "UshapeError",
    "__version__",
    "check",
    "compare",
    "cross_validate",
    "evaluate",
    "example",
    "export_model",
    "fetch",
    "find_learning_rate",
    "learning_curve",
    "load",
    "open_studio",
    "plan",
    "predict",
    "predict_zarr",
    "preview",
    "recipes",
    "report",
    "resume",
    "serve",
    "train",
    "tune",
    "weight_map",
]


def __getattr__(name: str) -> Any:
    name = _FORMER_NAMES.get(name, name)
    if name in FUNCTIONS:
        return load_function(name)
    raise AttributeError(f"module 'ushape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
