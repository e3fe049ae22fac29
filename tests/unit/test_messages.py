"""Commands, options and settings that messages and docstrings name exist."""

import ast
import re
from pathlib import Path

import typer

from ushape import cli, config
from ushape.planning.recipe import Recipe

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(cli.app).commands
OPTIONS = {
    name: {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    | {"--help"}
    for name, command in COMMANDS.items()
}


def string_texts(path):
    """Return all strings of a Python file; expressions in f-strings are replaced by X."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in n.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in parts:
            yield str(node.value)


def texts():
    """Yield the file name and the text of each string of the package."""
    for path in sorted((ROOT / "src" / "ushape").rglob("*.py")):
        for text in string_texts(path):
            yield path.name, text


def calls():
    """Yield the place, the command and the options of each command line in the texts."""
    for place, text in texts():
        for name, rest in re.findall(r"(?:`|: |^|\$ )ushape ([a-z][a-z-]+)\b([^`\n]*)", text, re.M):
            command = rest.partition("#")[0].partition("`")[0]
            yield place, name, re.findall(r"(?<!\S)--?[a-z][a-z-]*", command)


def missing_part(key):
    """Return the part of a setting's key that does not exist, or None."""
    section = Recipe
    for part in key.split("."):
        if section is None:
            return None  # A key of a dictionary, such as a loss in loss.terms.
        sections = config._sections(section)
        if part not in sections:
            return part
        section = sections[part]
    return None


def test_named_commands_exist():
    found = list(calls())
    assert len(found) > 40
    unknown = [(place, name) for place, name, _ in found if name not in COMMANDS]
    assert not unknown


def test_named_options_belong_to_their_command():
    unknown = [
        (place, name, option)
        for place, name, options in calls()
        for option in options
        if name in COMMANDS and option not in OPTIONS[name]
    ]
    assert not unknown


def test_named_settings_exist():
    found = [
        (place, key) for place, text in texts() for key in re.findall(r"--set\s+([a-z_.]+)=", text)
    ]
    assert len(found) > 10
    assert not [(place, key) for place, key in found if missing_part(key) is not None]


def test_options_in_messages_exist():
    # Of sbatch, `dask worker` and `docker run`.
    others = {"--array", "--memory-limit", "--shm-size", "--ipc"}
    known = set.union(*OPTIONS.values()) | {"--version"} | others
    unknown = [
        (place, option)
        for place, text in texts()
        if place != "cli.py"  # It accepts former options.
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text)
        if option not in known
    ]
    assert not unknown


def test_keys_in_messages_exist():
    sections = "|".join(name for name, kind in config._sections(Recipe).items() if kind)
    unknown = [
        (place, key)
        for place, text in texts()
        for key in re.findall(rf"(?<![\w./])(?:{sections})\.[a-z_]+(?:\.[a-z_]+)*(?=[= ,;:])", text)
        if not key.endswith((".key", ".py", ".json")) and missing_part(key) is not None
    ]
    assert not unknown
