"""Load, save, change and explain config dataclasses."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, Final, Literal, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from ushape.errors import ConfigError, plain_finding

T = TypeVar("T")


def from_dict(cls: type[T], values: Mapping[str, Any], *, source: str) -> T:
    """Build a config from nested plain values; missing keys take their defaults.

    Args:
        source: Origin of the values (a file or an option), for error messages.

    Raises:
        ConfigError: if a key is unknown (similar ones are named) or a value is impossible.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{source}: expected keys with values, found {type(values).__name__}.",
            code="invalid_value",
            hint="`ushape recipes auto` prints an example of the settings.",
        )
    _refuse_infinite(values, source, "")
    values = with_current_names(cls, values)
    _refuse_unknown_keys(cls, values, source, prefix="")
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{source}: {_key_of(cls, first['loc'])} cannot be {first['input']!r}: "
            f"{plain_finding(first['msg'])}.",
            code="invalid_value",
            hint="`ushape recipes auto --all` lists every key with its meaning.",
        ) from None


def to_dict(config: Any) -> dict[str, Any]:
    """Return nested plain values that JSON and YAML can hold; the inverse of `from_dict`."""
    return typing.cast("dict[str, Any]", TypeAdapter(type(config)).dump_python(config, mode="json"))


def setting_list(settings: Iterable[str] | str) -> tuple[str, ...]:
    """Return settings as a tuple; one string is one setting."""
    return (settings,) if isinstance(settings, str) else tuple(settings)


def override(config: T, settings: Iterable[str] | str) -> T:
    """Return a copy with `key.path=value` settings applied; values are read as YAML.

    Args:
        settings: Several settings, or one string.

    Raises:
        ConfigError: if a setting lacks '=', or its key is unknown or its value impossible.
    """
    values = to_dict(config)
    for setting in setting_list(settings):
        path, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(
                f"--set {setting} does not contain '='.",
                code="invalid_setting",
                hint="Write --set KEY=VALUE, e.g. --set train.batch_size=2.",
            )
        *sections, key = current_key(type(config), path.strip()).split(".")
        changed: Any = {key: _parse_yaml(text, source=f"--set {setting}")}
        target = values
        for section in sections:
            if not isinstance(target.get(section), dict):
                target[section] = {}
            target = target[section]
        target.update(changed)
        values = with_current_names(type(config), values)
        _refuse_unknown_keys(type(config), values, f"--set {setting}", prefix="")
    return from_dict(type(config), values, source="--set")


def parse(cls: type[T], text: str, *, source: str) -> T:
    """Read a config from YAML text.

    Raises:
        ConfigError: if the text is not YAML, or as for `from_dict`.
    """
    return from_dict(cls, parse_mapping(text, source=source), source=source)


def parse_mapping(text: str, *, source: str) -> dict[str, Any]:
    """Read keys and values from YAML text.

    Raises:
        ConfigError: if the text is not YAML, or something else than keys with values.
    """
    values = _parse_yaml(text, source=source) or {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{source}: expected keys with values, found {type(values).__name__}.",
            code="invalid_yaml",
            hint="`ushape recipes auto` prints an example of such a file.",
        )
    return values


def explain(config: Any, hidden: Collection[str] = ()) -> str:
    """Return the config as YAML with a comment above each key.

    Args:
        hidden: Paths of keys to leave out if they have their default, e.g. "train.workers".
    """
    return "\n".join(_explain_lines(config, to_dict(config), hidden, "")) + "\n"


def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    docs = {}
    for field, text in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs


@cache
@cache
def _hints_of(cls: type) -> dict[str, Any]:
    """Return the types of the fields, which take long to find, by name."""
    return typing.get_type_hints(cls)


def _sections(cls: type) -> dict[str, Any]:
    """Return the keys of a config, each with its config class if it is a section."""
    hints = _hints_of(cls)
    return {
        field.name: next(
            (t for t in _members(hints[field.name]) if dataclasses.is_dataclass(t)), None
        )
        for field in dataclasses.fields(cls)
        if field.init
    }


def _entries(hint: Any, value: Any) -> dict[str, tuple[type, Mapping[str, Any]]]:
    """Return class and values of each config in a dict[str, Config] or tuple[Config, ...]."""
    kinds = (one for one in typing.get_args(hint) if isinstance(one, type))
    kind = next((one for one in kinds if dataclasses.is_dataclass(one)), None)
    if kind is None or typing.get_origin(hint) not in (dict, tuple):
        return {}
    if not isinstance(value, Mapping | list | tuple):
        return {}
    named = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {str(name): (kind, own) for name, own in named if isinstance(own, Mapping)}


def with_current_names(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace keys and values of earlier versions, which `cls.RENAMED` lists, by current ones.

    `RENAMED` maps an old key to the current one, and "current key=old value" to the current value;
    values are also replaced within lists.
    """
    renamed, sections, current = getattr(cls, "RENAMED", {}), _sections(cls), {}
    for old, value in values.items():
        key = renamed.get(old, old)
        value = _current_value(renamed, key, value)
        section = sections.get(key)
        if section is not None and isinstance(value, Mapping):
            value = with_current_names(section, value)
        elif key in sections and (entries := _entries(_hints_of(cls)[key], value)):
            own = {name: with_current_names(*entry) for name, entry in entries.items()}
            value = own if isinstance(value, Mapping) else list(own.values())
        current[key] = value
    return current


def _current_value(renamed: Mapping[str, str], key: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_current_value(renamed, key, one) for one in value]
    return renamed.get(f"{key}={value}", value) if isinstance(value, str | bool) else value


def current_key(cls: type, key: str) -> str:
    """Return the current name of a setting, with dots between sections, such as train.monitor."""
    names: list[str] = []
    section: Any = cls
    for name in key.split("."):
        names.append(getattr(section, "RENAMED", {}).get(name, name))
        section = None if section is None else _sections(section).get(names[-1])
    return ".".join(names)


def _members(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _refuse_unknown_keys(cls: type, values: Mapping[str, Any], source: str, prefix: str) -> None:
    sections = _sections(cls)
    for key, value in values.items():
        if key not in sections:
            near = difflib.get_close_matches(str(key), sections, n=3, cutoff=0.5)
            known = ", ".join(prefix + name for name in near or sections)
            raise ConfigError(
                f"{source}: there is no key {prefix}{key}.",
                code="unknown_key",
                hint=f"{'Similar' if near else 'Known'} keys: {known}.",
            )
        section = sections[key]
        if section is not None and isinstance(value, Mapping):
            _refuse_unknown_keys(section, value, source, f"{prefix}{key}.")
        for name, (entry, own) in _entries(_hints_of(cls)[key], value).items():
            _refuse_unknown_keys(entry, own, source, f"{prefix}{key}.{name}.")


def _refuse_infinite(values: Any, source: str, path: str) -> None:
    """Raise ConfigError if a number is infinite or NaN, which no setting may be."""
    if isinstance(values, float) and not math.isfinite(values):
        raise ConfigError(
            f"{source}: {path} is {values}; it must be a finite number.",
            code="value_out_of_range",
            hint="`ushape recipes auto --all` lists every key with its meaning.",
        )
    if isinstance(values, Mapping):
        for key, value in values.items():
            _refuse_infinite(value, source, f"{path}.{key}" if path else str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            _refuse_infinite(value, source, path)


def _key_of(cls: type, location: tuple[int | str, ...]) -> str:
    """Return the key in a location of pydantic, which also names the members of unions."""
    parts: list[str] = []
    section: Any = cls
    for part in location:
        if section is None or part not in _sections(section):
            continue  # The name of a member of a union.
        parts.append(str(part))
        section = _sections(section)[str(part)]
    return ".".join(parts) or "all keys"


def _parse_yaml(text: str, *, source: str) -> Any:
    try:
        return yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        problem = str(getattr(error, "problem", None) or error)
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError(
            f"{source}{line}: this is not valid YAML: {' '.join(problem.split())}.",
            code="invalid_yaml",
            hint="Write lists as [0, 255], and put quotes around text with a colon.",
        ) from None


class _UniqueKeys(yaml.SafeLoader):
    """Safe loader that rejects a key that occurs twice in a section."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value} occurs twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _explain_lines(
    config: Any, values: Mapping[str, Any], hidden: Collection[str], path: str
) -> list[str]:
    docs, indent, lines = field_docs(type(config)), "  " * path.count("."), []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        doc = docs.get(field.name, "")
        if path + field.name in hidden and value == getattr(type(config)(), field.name):
            continue
        if dataclasses.is_dataclass(value):
            doc = doc or (type(value).__doc__ or "").strip().split("\n")[0]
            lines += ["", f"{indent}{field.name}:  # {doc}"]
            lines += _explain_lines(value, values[field.name], hidden, f"{path}{field.name}.")
            continue
        lines += textwrap.wrap(
            doc, 96, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        shown = yaml.safe_dump(values[field.name], default_flow_style=True, width=1000)
        lines.append(
            f"{indent}{field.name}: {shown.removesuffix(chr(10)).removesuffix('...').strip()}"
        )
    return lines


def is_custom(name: object) -> bool:
    """Whether a name stands for an object of a user's Python file, such as mine.py:MyLoss."""
    return isinstance(name, str) and ".py:" in name


def missing_code(key: str, name: str) -> ConfigError:
    """Return the error for an object of a user's Python file that is not loaded."""
    return ConfigError(
        f"{key} is {name}, and the Python file that defines it is not loaded.",
        code="custom_code_missing",
        hint="Name the file and its function again: --recipe FILE.py:FUNCTION.",
    )


KNOWN: Final = "known"
"""Key in the metadata of a field whose value is a name in a table: that table. The class of the
field checks the name, and the settings reference lists all of them."""

AUTO: Final = "auto"
Auto = Literal["auto"]


def resolved(value: T | Auto) -> T:
    """Return the value of a setting in a plan, which contains no "auto"."""
    assert value != AUTO, "the planner leaves nothing open"
    return value
