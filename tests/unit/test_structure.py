"""Import order, import cost and public names of the package."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import ushape
from ushape.api import FUNCTIONS
from ushape.io.annotations.shape_files import SHAPE_READERS
from ushape.planning.rules import RULES
from ushape.types import ShapesFormat

SOURCE = Path(ushape.__file__).parent
ROOT = Path(__file__).parents[2]

LEVELS = (
    {
        "_version",
        "errors",
        "interrupts",
        "formatting",
        "config",
        "types",
        "labels",
        "normalization",
        "console",
    },
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


def test_top_level_has_at_most_32_entries():
    entries = [path for path in SOURCE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 32


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


def documented_order():
    """Packages in the order of the table of architecture.md, without the entry points."""
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    part = page[page.index("## Where everything is") : page.index("## One case on its way")]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_documented_order_is_that_of_the_imports():
    order = documented_order()
    assert sorted(order) == sorted(set().union(*LEVELS) - {"_version", "__init__", "__main__"})
    wrong = {
        (package_of(module), package_of(other))
        for module, used in GRAPH.items()
        for other in used
        if {package_of(module), package_of(other)} <= set(order)
        and order.index(package_of(other)) > order.index(package_of(module))
    }
    assert not wrong


def test_documented_rules_are_those_of_the_planner_in_their_order():
    page = (ROOT / "docs/explanation/planning.md").read_text(encoding="utf-8")
    part = page[page.index("## Rules") : page.index("## Short training")]
    assert re.findall(r"\| `(choose_\w+)` \|", part) == [rule.__name__ for rule in RULES]


def test_functions_have_at_most_60_lines_besides_signature_and_docstring():
    long = [
        f"{module}.{node.name}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > 60
    ]
    assert not long


def body_lines(function):
    """Number of lines of a function after its signature and its docstring."""
    has_docstring = ast.get_docstring(function) is not None
    body = function.body[has_docstring:]
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_imports_for_type_checkers_are_those_of_the_public_functions():
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    found = {one.names[0].asname: one.module for one in block.body}
    assert found == {name: f"ushape.api.{module}" for name, module in FUNCTIONS.items()}


def test_annotation_formats_with_a_reader_are_those_of_stored_cases():
    # Contours in the patient are read together with their image, see io.annotations.rtstruct.
    assert {*SHAPE_READERS, "rtstruct"} == set(get_args(ShapesFormat))


def test_every_public_name_exists():
    assert all(hasattr(ushape, name) for name in ushape.__all__)
    assert {*FUNCTIONS, "UshapeError", "__version__"} <= set(ushape.__all__)
    assert set(ushape.__all__) <= set(dir(ushape))
    assert callable(ushape.predict)


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES)
def test_paths_are_resolved_without_an_exception_for_link_loops(path):
    """`Path.resolve` raises RuntimeError before Python 3.13; `real_path` does not."""
    assert ".resolve()" not in path.read_text(encoding="utf-8")
