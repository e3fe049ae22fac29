"""Import the programs of a standalone folder, as they import each other there."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import ushape

TEMPLATE = Path(ushape.__file__).parent / "export" / "standalone" / "template"


PROGRAMS: dict[str, ModuleType] = {}


def import_program(name: str) -> ModuleType:
    """Return a module of the template, such as objects.

    All of them are imported once, and then forgotten by Python, since a benchmark is also called
    objects.
    """
    if not PROGRAMS:
        names = sorted(path.stem for path in TEMPLATE.glob("*.py"))
        others = {own: sys.modules.pop(own) for own in names if own in sys.modules}
        sys.path.insert(0, str(TEMPLATE))
        try:
            PROGRAMS.update((own, importlib.import_module(own)) for own in names)
        finally:
            sys.path.remove(str(TEMPLATE))
            for own in names:
                sys.modules.pop(own, None)
            sys.modules.update(others)
    return PROGRAMS[name]
