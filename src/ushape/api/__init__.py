"""The public functions, each of which is also a command.

Their modules are imported when they are first used, because torch takes seconds to load.
"""

from functools import cache
from importlib import import_module
from typing import Any

FUNCTIONS = {
    "check": "check",
    "compare": "report",
    "cross_validate": "cross_validate",
    "evaluate": "evaluate",
    "example": "example",
    "export_model": "export",
    "fetch": "fetch",
    "find_learning_rate": "lr",
    "learning_curve": "learning_curve",
    "load": "load",
    "open_studio": "studio",
    "plan": "plan",
    "predict": "predict",
    "predict_zarr": "predict_zarr",
    "preview": "preview",
    "recipes": "recipes",
    "report": "report",
    "resume": "train",
    "serve": "serve",
    "train": "train",
    "tune": "tune",
    "weight_map": "preview",
}
"""Module in this package of each public function."""


@cache
def load_function(name: str) -> Any:
    """Import the module of a public function and return the function, which checks for URLs."""
    urls = import_module(f"{__name__}._urls")
    return urls.refusing_urls(getattr(import_module(f"{__name__}.{FUNCTIONS[name]}"), name))
