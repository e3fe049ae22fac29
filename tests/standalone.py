"""Import the programs of a standalone folder, as they import each other there."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import ushape

TEMPLATE = Path(ushape.__file__).parent / "export" / "standalone" / "template"


def import_program(name: str) -> ModuleType:
    """Return a module of the template, such as objects."""
    sys.path.insert(0, str(TEMPLATE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(TEMPLATE))
