"""Import order, import cost and public names of the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ushape
from ushape.api import FUNCTIONS

SOURCE = Path(ushape.__file__).parent

LEVELS = (
    {"_version", "errors", "formatting", "config", "types", "labels", "normalization", "console"},
    {"io", "transforms", "models", "losses", "metrics", "instances"},
    {"data", "datasets"},
    {"planning"},
    {"inference"},
    {"training", "evaluation"},
    {"reports", "export"},
    {"serving", "distributed"},
    {"studio"},
    {"api"},
    {"napari_plugin"},
    {"__init__", "cli", "__main__"},
)
"""Reading order: a package imports only packages of earlier levels, or modules of its own."""

WITHIN_LEVEL = {
    ("config", "errors"),
    ("console", "formatting"),
    ("labels", "errors"),
    ("labels", "types"),
    ("types", "errors"),
    ("types", "normalization"),
    ("transforms", "io"),
    ("instances", "transforms"),
    ("datasets", "data"),
    ("export", "reports"),
    ("__main__", "cli"),
}
"""Imports between packages of one level that are part of the design."""


def module_name(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py")}


def imports_of(path):
    """Names of the ushape modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ushape":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "ushape")


GRAPH = {name: set(imports_of(path)) - {name} for name, path in MODULES.items()}


def package_of(module):
    """Top-level entry of the package that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def level_of(package):
    return next(number for number, packages in enumerate(LEVELS) if package in packages)


def test_every_package_has_a_level():
    assert {package_of(module) for module in MODULES} == set().union(*LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_earlier_levels(module):
    own = package_of(module)
    wrong = [
        other
        for other in GRAPH[module]
        if (package := package_of(other)) != own
        and level_of(package) >= level_of(own)
        and (own, package) not in WITHIN_LEVEL
    ]
    assert not wrong


def test_no_import_cycle_lazy_imports_included():
    finished, active = set(), []

    def visit(module):
        assert module not in active, " -> ".join([*active[active.index(module) :], module])
        if module in finished:
            return
        active.append(module)
        for other in sorted(GRAPH[module]):
            visit(other)
        finished.add(active.pop())

    for module in sorted(MODULES):
        visit(module)


def test_no_module_imports_the_package_root():
    assert not {module for module, used in GRAPH.items() if "ushape" in used}


def test_top_level_has_at_most_31_entries():
    entries = [path for path in SOURCE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 31


def test_lightning_appears_only_in_training():
    users = {
        package_of(module)
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.split(".")[0] == "lightning"
    }
    assert users == {"training"}


def test_import_and_help_load_nothing_heavy():
    script = (
        "import sys; import ushape, ushape.cli; from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(ushape.cli.app, ['--help']).exit_code == 0\n"
        "print(*{'torch', 'lightning', 'matplotlib', 'numpy', 'scipy', 'PIL'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == []


def test_every_public_name_exists():
    assert all(hasattr(ushape, name) for name in ushape.__all__)
    assert {*FUNCTIONS, "UshapeError", "__version__"} <= set(ushape.__all__)
    assert set(ushape.__all__) <= set(dir(ushape))
    assert callable(ushape.predict)


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES)
def test_paths_are_resolved_without_an_exception_for_link_loops(path):
    """`Path.resolve` raises RuntimeError before Python 3.13; `real_path` does not."""
    assert ".resolve()" not in path.read_text(encoding="utf-8")
