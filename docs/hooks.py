"""MkDocs hooks: generate the reference pages and rewrite links to files outside docs/.

The reference pages are computed from the installed package at each build, so that they agree with
`ushape --help`, the recipe files and the docstrings.
"""

from __future__ import annotations

import ast
import dataclasses
import html
import inspect
import posixpath
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

import ushape
from ushape.cli import app
from ushape.config import KNOWN, field_docs, to_dict
from ushape.errors import UshapeError
from ushape.planning.recipe import Recipe

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated reference pages."""
    pages = {
        "command-line": command_line_page(),
        "recipe-settings": recipe_settings_page(),
        "python-api": python_api_page(),
        "error-codes": error_codes_page(),
        "changelog": (ROOT / "CHANGELOG.md")
        .read_text(encoding="utf-8")
        .replace("](docs/", "](../"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let relative links to files outside docs/ point into the repository."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def absolute(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        if target.startswith("docs/"):
            return match[0]
        return f"]({config.repo_url}/blob/main/{target})"

    return re.sub(r"\]\((\.\./[^)\s]+)\)", absolute, markdown)


def command_line_page() -> str:
    """Return the description, arguments and options of each command as Markdown."""
    parts = [
        "# Command line",
        "`ushape COMMAND --help` prints the same text. Options in bold are required.",
    ]
    for name, command in sorted(get_command(app).commands.items()):
        if command.hidden:
            continue
        parts += [f"## ushape {name}", inspect.cleandoc(command.help or ""), _usage(name, command)]
        parameters = [
            one
            for one in command.params
            if one.name != "help" and not getattr(one, "hidden", False)
        ]
        if parameters:
            parts.append(
                _table(("Name", "Default", "Description"), map(_parameter_row, parameters))
            )
    return "\n\n".join(parts) + "\n"


def recipe_settings_page() -> str:
    """Return each key of a recipe with its default and its meaning as Markdown."""
    parts = [
        "# Recipe settings",
        "These are the keys of a recipe file with the defaults of the recipe `auto`. "
        "Change them in a copy (`ushape recipes auto --all > mine.yaml`) or on the command line "
        "(`--set train.batch_size=2`). The value `auto` is decided by the planner; "
        "`ushape plan DATA --explain` shows the decision.",
        *_setting_sections(Recipe(), ""),
    ]
    return "\n\n".join(parts) + "\n"


def python_api_page() -> str:
    """Return a page that documents the public functions, what they return, and the errors."""
    public = [getattr(ushape, name) for name in ushape.__all__]
    functions = [one for one in public if inspect.isfunction(one)]
    errors = [one for one in public if inspect.isclass(one)]
    parts = ["# Python API", "All names below, except for the results, belong to `ushape`."]
    parts += ["## Functions", *map(_documented, functions)]
    parts += ["## Results", *map(_documented, _results_of(functions))]
    parts += ["## Errors", *map(_documented, errors)]
    return "\n\n".join(parts) + "\n"


def error_codes_page() -> str:
    """Return each error code with its class, the modules that use it, and its messages."""
    classes = {one.__name__: one for one in (UshapeError, *UshapeError.__subclasses__())}
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path in sorted(Path(ushape.__file__).parent.rglob("*.py")):
        module = path.relative_to(Path(ushape.__file__).parent).with_suffix("").as_posix()
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in classes and call.args:
                error = classes[ast.unparse(call.func)]
                code = next((one.value for one in call.keywords if one.arg == "code"), None)
                name = code.value if isinstance(code, ast.Constant) else error.default_code
                place = (
                    module.removesuffix("/__init__").replace("/", "."),
                    _message_of(call.args[0]),
                )
                found.setdefault((name, error.__name__), []).append(place)
    rows = []
    for (code, name), places in sorted(found.items()):
        modules = dict.fromkeys(_breakable(module) for module, _ in places)
        messages = list(dict.fromkeys(message for _, message in places if message))
        rows.append(
            (_breakable(code), _breakable(name), ", ".join(modules), "<br>".join(messages[:3]))
        )
    parts = [
        "# Error codes",
        "Every mistake that a user can correct raises a subclass of `ushape.UshapeError`. It has a "
        "`message`, a `hint` about what to do next, and a `code` that does not change between "
        "versions, so that programs can react to it. The command line prints the message and the "
        "hint, and exits with status 2.",
        "```python\n"
        "import ushape\n\n"
        "try:\n"
        '    ushape.load("runs/missing")\n'
        "except ushape.RunError as error:\n"
        "    print(error.code, error.message, error.hint)\n"
        "```",
        "Up to three messages of each code are shown as examples; … stands for a name or a value. "
        "The modules are relative to the package `ushape`.",
        _table(("Code", "Exception", "Raised in", "Messages"), rows),
    ]
    return "\n\n".join(parts) + "\n"


def _breakable(code: str) -> str:
    """Return a name as code that a narrow column breaks after _ and . only."""
    text = code.replace("_", "_<wbr>").replace(".", ".<wbr>")
    return f'<code style="word-break: keep-all">{text}</code>'


def _message_of(node: ast.expr) -> str:
    """Return the text of a message, with … in place of each value; empty if it is computed."""
    if isinstance(node, ast.Constant):
        return html.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        parts = (
            html.escape(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values
        )
        return "".join(parts)
    return ""


def _usage(name: str, command: Any) -> str:
    arguments = [_label(one) for one in command.params if one.param_type_name == "argument"]
    return f"```text\n{' '.join(['ushape', name, '[OPTIONS]', *arguments])}\n```"


def _parameter_row(parameter: Any) -> tuple[str, str, str]:
    is_argument = parameter.param_type_name == "argument"
    name = _label(parameter) if is_argument else ", ".join(parameter.opts)
    label = f"**`{name}`**" if parameter.required else f"`{name}`"
    default = parameter.default
    is_shown = isinstance(default, (str, int, float)) and default is not False
    return label, f"`{default}`" if is_shown else "", parameter.help or ""


def _label(argument: Any) -> str:
    return (argument.metavar or argument.name or "").upper()


def _setting_sections(config: Any, prefix: str) -> Iterator[str]:
    """Yield a heading and a table for a config, then the same for each config inside it."""
    docs, values = field_docs(type(config)), to_dict(config)
    hints = typing.get_type_hints(type(config))
    known = {one.name: one.metadata.get(KNOWN, ()) for one in dataclasses.fields(config)}
    rows, sections = [], []
    for name in values:
        value = getattr(config, name)
        if not dataclasses.is_dataclass(value):
            allowed = ", ".join(known[name]) or _values_of(hints[name])
            cells = (name, _as_yaml(values[name]), allowed)
            rows.append((*(f"`{cell}`" for cell in cells), docs.get(name, "")))
            value = _default_section(hints[name])
        if value is not None:
            sections.append((f"{prefix}.{name}".lstrip("."), value))
    if prefix:
        yield f"## {prefix}"
        yield inspect.cleandoc(type(config).__doc__ or "")
    if rows:
        yield _table(("Key", "Default", "Values", "Meaning"), rows)
    for name, section in sections:
        yield from _setting_sections(section, name)


def _default_section(hint: Any) -> Any:
    """Return the default config of an optional section, or None if there is no such section."""
    members = typing.get_args(hint) if typing.get_origin(hint) is not tuple else ()
    found = [one for one in members if dataclasses.is_dataclass(one) and _has_defaults(one)]
    return found[0]() if found else None


def _has_defaults(section: type) -> bool:
    """Return whether every field has a default; the others are no settings of the user."""
    missing = dataclasses.MISSING
    return all(
        one.default is not missing or one.default_factory is not missing
        for one in dataclasses.fields(section)
    )


def _values_of(hint: Any) -> str:
    """Return the values that a type hint allows, in the words of a YAML file."""
    members = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(_as_yaml(one) for one in members)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_values_of, members))
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) is tuple:
        inner = dict.fromkeys(_values_of(one) for one in members if one is not Ellipsis)
        return f"list of {' or '.join(inner)}"
    if typing.get_origin(hint) is dict:
        return f"mapping of {_values_of(members[0])} to {_values_of(members[1])}"
    if dataclasses.is_dataclass(hint):
        return "section"
    if typing.get_origin(hint) is Callable:
        return "class or function"
    return getattr(hint, "__name__", str(hint))


def _as_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.strip().removesuffix("...").strip()


def _results_of(functions: list[Any]) -> list[type]:
    """Return the classes of ushape that the functions return, each once."""
    found: dict[type, None] = {}
    for function in functions:
        hint = typing.get_type_hints(function).get("return")
        for one in (hint, *typing.get_args(hint)):
            if inspect.isclass(one) and one.__module__.startswith("ushape."):
                found.setdefault(one)
    return list(found)


def _documented(member: Any) -> str:
    options = "    options:\n      heading_level: 3"
    return f"::: {member.__module__}.{member.__qualname__}\n{options}"


def _table(header: tuple[str, ...], rows: Any) -> str:
    lines = [header, ("---",) * len(header), *rows]
    cells = ([re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
