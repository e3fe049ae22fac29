"""ushape: from a folder of images and masks to a segmentation model you can trust.

import ushape

run = ushape.train("my_images")
ushape.predict(run.folder, ["new_images"], output="masks")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ushape.errors import ConfigError, DataError, PlanError, RunError, UshapeError

if TYPE_CHECKING:
    from ushape.api import evaluate, example, predict, recipes, resume, train
    from ushape.looking import lr, preview, weights

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DataError",
    "PlanError",
    "RunError",
    "UshapeError",
    "evaluate",
    "example",
    "lr",
    "predict",
    "preview",
    "recipes",
    "resume",
    "train",
    "weights",
]


def __getattr__(name: str) -> Any:
    """Loads the verbs, and with them torch, at their first use."""
    if name in __all__:
        from ushape import api, looking

        return getattr(looking if name in ("lr", "preview", "weights") else api, name)
    raise AttributeError(f"module 'ushape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
