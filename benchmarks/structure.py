"""Measure the layout of the source tree: entries, import cycles, lengths of files and functions.

    python benchmarks/structure.py [TREE ...]

Prints a Markdown table with one column per tree; a tree is the folder of a package (default: the
`ushape` package of this repository). The import cycles that were found are listed below the table.

How imports are counted:

- Each file is a module, and the `__init__.py` of a package is a module of its own. An import of
  `ushape.io.tiff` is not counted as an import of its parents `ushape.io` and `ushape`.
- `from ushape.io import X` is an import of `ushape.io`, unless X is a submodule of it. The same
  holds for the package root: `from ushape import __version__` imports the root.
- Imports inside functions and classes count. So do strings such as "ushape.api.train" that name a
  module exactly, because modules that are loaded on first use are listed in this way. A name that
  is put together at run time is not found.
- Imports below `if TYPE_CHECKING:` never run. They are left out of the first row of cycles and are
  included in the second.

A cycle is a strongly connected component of more than one module: modules that all import each
other, directly or through others. The length of a function includes its signature and docstring,
but not its decorators.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import resolve_name
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "ushape"
LONG_FUNCTION = 50
SHORT_FILE = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "trees", metavar="TREE", nargs="*", type=Path, default=[PACKAGE], help="Package folder."
    )
    trees = [SourceTree(path.resolve()) for path in parser.parse_args().trees]
    print_table(trees)
    for tree in trees:
        print_details(tree)


@dataclass(frozen=True)
class Import:
    """One import of a module of the package by another."""

    source: str
    target: str
    only_for_types: bool


@dataclass(frozen=True)
class Function:
    """A function or method, with its place in the source."""

    name: str
    place: str
    lines: int


class SourceTree:
    """The Python files of one package, and what is measured on them."""

    def __init__(self, folder: Path):
        if not (folder / "__init__.py").is_file():
            sys.exit(f"{folder} is not a package. Give the folder that holds __init__.py.")
        self.folder = folder
        self.package = folder.name

    @cached_property
    def texts(self) -> dict[str, str]:
        """The text of each Python file, by module name."""
        files = sorted(self.folder.rglob("*.py"))
        return {self._module_name(path): path.read_text(encoding="utf-8") for path in files}

    def _module_name(self, path: Path) -> str:
        parts = path.relative_to(self.folder.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def syntax(self) -> dict[str, ast.Module]:
        """The syntax tree of each file, by module name."""
        return {module: ast.parse(text) for module, text in self.texts.items()}

    @property
    def top_level_entries(self) -> list[str]:
        """Modules, packages and other files directly in the package."""
        names = [path.name for path in self.folder.iterdir()]
        return sorted(name for name in names if name != "__pycache__" and name[0] != ".")

    @cached_property
    def functions(self) -> list[Function]:
        """All functions and methods, nested ones included."""
        return [
            Function(node.name, f"{module}:{node.lineno}", node.end_lineno - node.lineno + 1)
            for module, tree in self.syntax.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
        ]

    @cached_property
    def imports(self) -> set[Import]:
        """All imports of modules of the package."""
        return {
            Import(module, target, only_for_types)
            for module, tree in self.syntax.items()
            for node, only_for_types in walk_with_type_checking(tree)
            for target in self._targets(module, node)
        }

    def _targets(self, module: str, node: ast.AST) -> Iterator[str]:
        """Yield the modules of the package that a node of the syntax tree imports."""
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in self.texts)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            origin = resolve_name(origin, self._package_of(module))
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                found = submodule if submodule in self.texts else origin
                if found in self.texts:
                    yield found
        elif isinstance(node, ast.Constant) and node.value in self.texts.keys() - {self.package}:
            yield str(node.value)

    def _package_of(self, module: str) -> str:
        """Return the package that the relative imports of a module start from."""
        is_package = self.folder.parent.joinpath(*module.split("."), "__init__.py").is_file()
        return module if is_package else module.rpartition(".")[0]

    def cycles(self, with_types: bool) -> list[list[str]]:
        """Return the import cycles, the modules of each in alphabetical order."""
        graph: dict[str, set[str]] = {module: set() for module in self.texts}
        for one in self.imports:
            if with_types or not one.only_for_types:
                graph[one.source].add(one.target)
        return strongly_connected(graph)

    @property
    def root_importers(self) -> list[str]:
        """Modules that import the package root itself, not one of its submodules."""
        return sorted({one.source for one in self.imports if one.target == self.package})

    @property
    def long_functions(self) -> list[Function]:
        """Functions longer than the limit, longest first."""
        found = [one for one in self.functions if one.lines > LONG_FUNCTION]
        return sorted(found, key=lambda one: -one.lines)

    @property
    def line_counts(self) -> list[int]:
        """Number of lines of each Python file."""
        return [len(text.splitlines()) for text in self.texts.values()]

    @property
    def public_names(self) -> int:
        """Number of names in `__all__` of the package, which is imported for this."""
        script = f"import {self.package}; print(len({self.package}.__all__))"
        command = [sys.executable, "-B", "-c", script]
        return int(subprocess.check_output(command, cwd=self.folder.parent, text=True))


def walk_with_type_checking(
    node: ast.AST, only_for_types: bool = False
) -> Iterator[tuple[ast.AST, bool]]:
    """Yield all nodes below a node, each with whether it is below `if TYPE_CHECKING:`."""
    yield node, only_for_types
    guarded: list[ast.stmt] = []
    if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
        guarded = node.body
    for child in ast.iter_child_nodes(node):
        yield from walk_with_type_checking(child, only_for_types or child in guarded)


def strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one node."""
    reached = {start: reachable(graph, start) for start in graph}
    components = {
        tuple(sorted(other for other in reached[start] if start in reached[other]))
        for start in graph
    }
    return [list(component) for component in sorted(components) if len(component) > 1]


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return the nodes that can be reached from a node in one or more steps."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(graph[node])
    return found


def measure(tree: SourceTree) -> dict[str, str]:
    """Return the rows of the table for one tree."""
    short = sum(count < SHORT_FILE for count in tree.line_counts)
    longest = max(one.lines for one in tree.functions)
    predict = sum(bool(re.match("_?predict", one.name)) for one in tree.functions)
    return {
        "entries at the top level of the package": f"{len(tree.top_level_entries)}",
        "import cycles, lazy imports included": f"{len(tree.cycles(with_types=False))}",
        "import cycles, `TYPE_CHECKING` included": f"{len(tree.cycles(with_types=True))}",
        "modules that import the package root": f"{len(tree.root_importers)}",
        "`def predict*` / `_predict*`": f"{predict}",
        "Python files": f"{len(tree.texts)}",
        "lines in Python files": f"{sum(tree.line_counts):,}",
        f"files with fewer than {SHORT_FILE} lines": f"{short}",
        "longest function, in lines": f"{longest}",
        f"functions over {LONG_FUNCTION} lines": f"{len(tree.long_functions)}",
        "public names": f"{tree.public_names}",
    }


def print_table(trees: list[SourceTree]) -> None:
    columns = ["before", "after"] if len(trees) == 2 else [tree.package for tree in trees]
    rows = [measure(tree) for tree in trees]
    print(f"| what | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for name in rows[0]:
        print(f"| {name} | {' | '.join(row[name] for row in rows)} |")


def print_details(tree: SourceTree) -> None:
    """Print the cycles, the importers of the root and the long functions by name."""
    print(f"\n{tree.folder}")
    for number, cycle in enumerate(tree.cycles(with_types=True), start=1):
        print(f"- cycle {number}, {len(cycle)} modules: {', '.join(cycle)}")
    if tree.root_importers:
        print(f"- modules that import the package root: {', '.join(tree.root_importers)}")
    for one in tree.long_functions:
        print(f"- {one.lines} lines: {one.name} ({one.place})")


if __name__ == "__main__":
    main()
