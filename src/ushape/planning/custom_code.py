"""Recipes in a Python file of the user, with a custom network or loss.

The file runs only if the user specifies it, as in `--recipe mine.py:small_lesions`: its objects are
then added to MODELS and LOSSES under names such as mine.py:small_lesions.SmallNet, which the plan
records together with the checksum of the file. A run keeps a copy of the file but never runs it, so
that loading a run executes no code; to use the run, specify the file again.
"""

from __future__ import annotations

import copy
import hashlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ushape.config import AUTO, is_custom
from ushape.errors import ConfigError
from ushape.formatting import quoted
from ushape.losses import LOSSES, LossBuilder, LossConfig
from ushape.models import MODELS
from ushape.planning.recipe import CodeReference, Recipe

_SOURCES: dict[str, tuple[str, bytes]] = {}
"""Checksum and text of each file that the user named in this process, by file name."""


def load_custom_recipe(reference: str) -> Recipe:
    """Run the function that a reference such as folder/mine.py:small_lesions names.

    The function returns a `Recipe`. Its `network.architecture` may be a class or function of
    (config, input channels, output channels), or a network, of which each training run starts with
    a copy; see `ushape.models` for what a network needs. A key of its `loss.terms` may be a class
    or function of the label space, or a built loss. The file must not import other files of its
    folder, because the run keeps a copy of this one only:

        from ushape.losses import LossConfig
        from ushape.models.config import NetworkConfig
        from ushape.planning.recipe import Recipe

        def small_lesions() -> Recipe:
            return Recipe(
                network=NetworkConfig(architecture=SmallNet),
                loss=LossConfig(terms={SmallLesionLoss: 1.0, "dice": 0.5}),
            )

    Raises:
        ConfigError: if the file or the function does not exist, fails, or returns no `Recipe`.
    """
    file, _, function = reference.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(
            f"{path} does not exist.",
            code="custom_code_not_found",
            hint="Specify a Python file and a function in it: --recipe FILE.py:FUNCTION.",
        )
    source = path.read_bytes()
    checksum = hashlib.sha256(source).hexdigest()
    make = getattr(_run_file(path, source, checksum), function, None)
    if not callable(make):
        raise ConfigError(
            f"{path} has no function {function}.",
            code="custom_code_not_found",
            hint="Specify a function of the file that returns a Recipe: --recipe FILE.py:FUNCTION.",
        )
    recipe = _run_user_code(path, make)
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            f"{reference} returns {type(recipe).__name__}, not a Recipe.",
            code="custom_code_failed",
            hint="Return a ushape.planning.recipe.Recipe.",
        )
    _SOURCES[path.name] = checksum, source
    code = CodeReference(file=path.name, function=function, checksum=checksum)
    name = code.name if recipe.name == AUTO else recipe.name
    return _with_names_for_objects(replace(recipe, name=name, code=code), code.name)


def allow_code(reference: str | None) -> None:
    """Run the Python file that the user names, if any, for the runs that need it.

    Raises:
        ConfigError: as `load_custom_recipe`, or if the reference is not FILE.py:FUNCTION.
    """
    if reference is None:
        return
    if not is_custom(reference):
        raise ConfigError(
            f"{reference} is not a function of a Python file.",
            code="custom_code_not_found",
            hint="A trained run keeps its recipe. Specify only the Python file that defines its "
            "custom network or loss: --recipe FILE.py:FUNCTION.",
        )
    load_custom_recipe(reference)


def refuse_objects(recipe: Recipe) -> Recipe:
    """Return a recipe that was not read from a file, if it contains no objects.

    Raises:
        ConfigError: if it contains a network or a loss, which no run could keep.
    """
    objects = [key for key in (recipe.network.architecture, *recipe.loss.terms) if callable(key)]
    if objects:
        raise ConfigError(
            f"The recipe contains the object {_label_of(objects[0])}, which a run cannot keep.",
            code="custom_code_without_file",
            hint='Specify a function that returns the recipe: recipe="FILE.py:FUNCTION".',
        )
    return recipe


def require_code(recipe: Recipe, kept: Path, *, training: bool) -> None:
    """Check that the user specified the file whose network or loss the recipe uses.

    Args:
        kept: Folder of the run's copy of the file.
        training: Whether the loss is needed as well; prediction only needs the network.

    Raises:
        ConfigError: if the file was not specified, or differs from the one that trained the run.
    """
    names = [recipe.network.architecture, *(recipe.loss.terms if training else ())]
    used = [name for name in names if is_custom(name)]
    if not used or recipe.code is None:
        return
    code, copied = recipe.code, kept / Path(recipe.code.file).name
    named = copied if copied.is_file() else f"PATH/{copied.name}"
    option = f"--recipe {quoted(f'{named}:{code.function}')}"
    loaded, _ = _SOURCES.get(code.file, ("", b""))
    if not loaded:
        raise ConfigError(
            f"{kept.parent} uses {used[0]}, which is defined in {code.file}. That file is not "
            "loaded, because opening a run never executes its code.",
            code="custom_code_missing",
            hint=f"If you trust the file, specify it: {option}",
        )
    if loaded != code.checksum:
        raise ConfigError(
            f"{code.file} is not the file that {kept.parent} was trained with: its checksum is "
            f"{loaded[:12]}, that of the run {code.checksum[:12]}.",
            code="custom_code_changed",
            hint=f"Specify the file that was used for training: {option}",
        )


def loaded_source(code: CodeReference) -> bytes | None:
    """Return the text of a file that the user named, or None if it was not named or differs."""
    checksum, source = _SOURCES.get(code.file, ("", b""))
    return source if checksum == code.checksum else None


def _run_file(path: Path, source: bytes, checksum: str) -> ModuleType:
    """Import the file under a unique name; the same text is run once per process."""
    name = f"ushape_custom_{checksum[:16]}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # Dataclasses look up the module of their class.
        try:
            _run_user_code(path, lambda: exec(compile(source, path, "exec"), module.__dict__))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _run_user_code(path: Path, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        raise ConfigError(
            f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {error}",
            code="custom_code_failed",
            hint="Fix the file. It cannot import other files in its folder.",
        ) from error


def _with_names_for_objects(recipe: Recipe, prefix: str) -> Recipe:
    """Add the objects of a recipe to MODELS and LOSSES, and replace them by their names."""
    network = recipe.network
    terms: dict[str | LossBuilder, float] = {}
    if callable(network.architecture):
        name = f"{prefix}.{_label_of(network.architecture)}"
        made: Any = network.architecture  # A built network is copied for each training.
        is_built = isinstance(made, nn.Module)
        MODELS[name] = (lambda *_: copy.deepcopy(made)) if is_built else made
        network = replace(network, architecture=name)
    for loss, factor in recipe.loss.terms.items():
        if callable(loss):
            name = f"{prefix}.{_label_of(loss)}"
            if name in terms:
                name = f"{name}_{len(terms) + 1}"
            LOSSES[name] = _loss_builder(loss)
            loss = name
        terms[loss] = factor
    return replace(recipe, network=network, loss=replace(recipe.loss, terms=terms))


def _loss_builder(loss: Any) -> Callable[..., nn.Module]:
    def build(space: Any, config: LossConfig) -> nn.Module:
        built: nn.Module = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss(space)
        return built

    return build


def _label_of(thing: Any) -> str:
    """Return the name of a class or function, or of the class of an object."""
    return str(getattr(thing, "__name__", type(thing).__name__)).strip("<>")
