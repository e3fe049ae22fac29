"""Who may import whom, and what `import ushape` may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import ushape

SOURCE = Path(ushape.__file__).parent
LEVELS = [
    {"errors", "types", "words", "labels", "rows", "scaling", "config"},
    {"io", "spatial", "models", "losses", "metrics", "augment", "objects"},
    {"data", "pages"},
    {"planning"},
    {"prediction"},
    {"evaluation"},
    {"training"},
    {
        *("cookbook", "console", "fetching", "outputs", "workflow", "judging", "looking", "model"),
        *(
            "checking",
            "cross_validation",
            "intent",
            "reporting",
            "side_by_side",
            "learning_curves",
            "predicting",
            "series",
            "api",
            "cli",
            "__init__",
            "__main__",
        ),
    },
]
EXCEPTIONS = {("augment", "spatial")}
LAST = len(LEVELS) - 1


def level_of(room):
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def imports_of(path):
    """The rooms of ushape that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "ushape":
                yield from parts[1:2] or (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("ushape."):
                    yield alias.name.split(".")[1]


def test_a_level_imports_only_levels_above_it():
    wrong = []
    for path in SOURCE.rglob("*.py"):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for other in imports_of(path):
            if other == room or (room, other) in EXCEPTIONS or level_of(room) == LAST:
                continue
            if level_of(other) >= level_of(room) and level_of(other) > 0:
                wrong.append(f"{path.relative_to(SOURCE)} imports {other}")
    assert not wrong


def test_no_verb_is_called_like_a_room():
    # Importing a room makes it an attribute of the package, in place of the verb.
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")}
    assert not rooms & set(ushape.__all__)


def test_lightning_appears_only_in_training():
    users = {
        path.relative_to(SOURCE).parts[0]
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (
            isinstance(node, ast.Import)
            and any(a.name.split(".")[0] == "lightning" for a in node.names)
        )
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lightning")
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


def test_every_public_name_is_there():
    assert all(hasattr(ushape, name) for name in ushape.__all__)
    assert set(ushape.__all__) <= set(dir(ushape))
    assert callable(ushape.predict)
