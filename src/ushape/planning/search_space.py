"""Settings that a search varies, and their values around those of a plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ushape import config
from ushape.config import resolved
from ushape.errors import ConfigError
from ushape.losses import LossConfig
from ushape.models import network_sizes
from ushape.planning.plan import Plan
from ushape.planning.recipe import Recipe
from ushape.planning.rules.resolution import MIN_SIDE
from ushape.transforms.augment import AugmentConfig, exaggerate

PLANNED = "planned"
"""Name of the value that the plan has without the search."""

SECTIONS = ("preprocessing", "sampling", "augment", "network", "loss", "pixel_weights", "train")
"""Sections whose settings can be searched. The others define the task and its scores."""

FIXED = ("train.minutes", "train.epochs", "train.threads", "train.compare_start")
"""Settings of these sections that must be the same in all trials."""

RATES = (2.0, 0.5)
"""Learning rates, relative to the planned one, which is low for short training runs
(benchmarks/speedrun.md)."""

DOWNSCALE = (1.0, 1.5, 2.0, 3.0, 4.0)

PATCH_SIDES = (0.5, 2.0)
"""Sides of a patch, relative to the planned one."""

MIN_PATCH = {2: 64, 3: 16}
"""Shortest side of a patch that is tried, by the number of dimensions."""

STRENGTHS = {"half as strong": 0.5, "1.5 times as strong": 1.5}
"""Augmentations by name: factors of the planned amounts."""

LOSSES = ("{cross_entropy: 1, dice: 2}", "{cross_entropy: 1, tversky: 1}")
"""Losses that give more weight to the overlap, or to missed foreground, than the usual one."""

WIDTHS = (1.5, 0.5)
"""Channels, relative to the planned ones."""

WIDE_FROM_MINUTES = 30.0
"""Training minutes on a CPU from which wider networks are tried: in less time, the steps that they
cost are worth more than their width (benchmarks/plan.md)."""


@dataclass(frozen=True, kw_only=True)
class SearchedSetting:
    """A recipe setting, and the values that are tried in addition to the planned one."""

    key: str
    planned: str
    """Value of the plan, as text; '' if it is too long."""

    values: dict[str, str]
    """Value of each alternative as `--set` reads it, by the name under which it is shown."""

    @property
    def text(self) -> str:
        """Line such as "train.learning_rate: 0.002 (planned), 0.004, 0.001"."""
        planned = f"{self.planned} (planned)" if self.planned else PLANNED
        return f"{self.key}: {', '.join([planned, *self.values])}"


def propose_space(plan: Plan, shape: Sequence[int]) -> tuple[SearchedSetting, ...]:
    """Return the settings that matter most and whose best value depends on the data.

    They are in the order in which they are tried.

    Args:
        shape: Size of a typical image in pixels before `preprocessing.downscale`.

    Source:
        benchmarks/speedrun.md and benchmarks/plan.md: the learning rate, the pixels that a patch
        shows and their resolution decide most; width and augmentation depend on the time.
    """
    rate = plan.recipe.train.learning_rate
    found = [
        _numbers("train.learning_rate", rate, [factor * resolved(rate) for factor in RATES]),
        _numbers("preprocessing.downscale", *_factors(plan, shape)),
        _lists("sampling.patch_shape", plan.patch_shape, _patches(plan, shape)),
        _augmentations(plan),
        _losses(plan),
        _lists("network.widths", resolved(plan.recipe.network.widths), _widths(plan)),
    ]
    return tuple(one for one in found if one.values)


def read_searches(
    searches: Iterable[str], proposed: Iterable[SearchedSetting], recipe: Recipe, plan: Plan
) -> tuple[SearchedSetting, ...]:
    """Return the proposed settings with those that the user specifies as KEY=A,B,C.

    A specified key replaces the proposed one or is added; if "planned" is its only value, it is
    excluded.

    Raises:
        ConfigError: if a key cannot be searched, or a value is impossible.
    """
    found = {one.key: one for one in proposed}
    for search in searches:
        key, equals, text = (part.strip() for part in search.partition("="))
        values = [value for value in _split(text) if value]
        if not equals or not values:
            raise ConfigError(
                f"--search {search} has no values.",
                code="invalid_setting",
                hint="Write --search KEY=A,B, e.g. --search train.learning_rate=0.001,0.004.",
            )
        key = config.current_key(Recipe, key)
        _refuse_fixed(key)
        values = [value for value in values if value != PLANNED]
        for value in values:
            _refuse_impossible(recipe, key, value)
        found[key] = _texts(key, _value_of(plan, key), values)
    return tuple(one for one in found.values() if one.values)


def without_fixed(
    space: Iterable[SearchedSetting], settings: Iterable[str]
) -> tuple[SearchedSetting, ...]:
    """Return the settings that the user has not fixed with --set."""
    fixed = [config.current_key(Recipe, one.partition("=")[0].strip()) for one in settings]
    return tuple(one for one in space if not any(_overlap(one.key, key) for key in fixed))


def settings_of(space: Iterable[SearchedSetting], chosen: Mapping[str, str]) -> tuple[str, ...]:
    """Return the `--set` options of a choice; planned values need none.

    Args:
        chosen: Name of the chosen value by key.
    """
    return tuple(
        f"{one.key}={one.values[name]}"
        for one in space
        if (name := chosen.get(one.key, PLANNED)) != PLANNED
    )


def describe_choice(chosen: Mapping[str, str]) -> str:
    """Return text such as "train.learning_rate 0.004", or "as planned"."""
    changed = [f"{key} {name}" for key, name in chosen.items() if name != PLANNED]
    return ", ".join(changed) or "as planned"


def _overlap(one: str, other: str) -> bool:
    """Return whether two keys are the same, or one is a section of the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _refuse_fixed(key: str) -> None:
    if key.partition(".")[0] in SECTIONS and key not in FIXED:
        return
    raise ConfigError(
        f"--search {key}: this setting must be the same in all trials.",
        code="setting_not_searched",
        hint=f"Search settings of {', '.join(SECTIONS)}; set others with --set {key}=VALUE.",
    )


def _refuse_impossible(recipe: Recipe, key: str, value: str) -> None:
    try:
        config.override(recipe, (f"{key}={value}",))
    except ConfigError as error:
        error.message = error.message.replace("--set", "--search")
        raise


def _split(text: str) -> Iterator[str]:
    """Yield the substrings between commas that are outside of brackets."""
    depth = begin = 0
    for place, character in enumerate(text):
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            yield text[begin:place].strip()
            begin = place + 1
    yield text[begin:].strip()


def _value_of(plan: Plan, key: str) -> str:
    """Return the planned value of a key that exists in every recipe."""
    value: Any = config.to_dict(plan.recipe)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return _as_yaml(value)


def _as_yaml(value: Any) -> str:
    """Return a value in one line, as `--set` reads it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _numbers(key: str, planned: object, values: Iterable[float]) -> SearchedSetting:
    return _texts(key, str(planned), [f"{value:.4g}" for value in values])


def _lists(
    key: str, planned: tuple[int, ...], values: Iterable[tuple[int, ...]]
) -> SearchedSetting:
    return _texts(key, str(list(planned)), [str(list(value)) for value in values])


def _texts(key: str, planned: str, values: Iterable[str]) -> SearchedSetting:
    """Return a setting whose values are shown as they are written."""
    return SearchedSetting(key=key, planned=planned, values={value: value for value in values})


def _factors(plan: Plan, shape: Sequence[int]) -> tuple[object, list[float]]:
    """Return the planned factor, and the next smaller and the next larger one."""
    preprocessing = plan.recipe.preprocessing
    planned = preprocessing.downscale
    if isinstance(planned, tuple) or preprocessing.shape is not None:
        return planned, []
    factor = float(resolved(planned))
    finer = [one for one in DOWNSCALE if one < factor]
    coarser = [one for one in DOWNSCALE if one > factor and min(shape[-2:]) / one >= MIN_SIDE]
    return f"{factor:g}", [*coarser[:1], *finer[-1:]]


def _patches(plan: Plan, shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield patches of half and twice the side that the network accepts."""
    planned, sizes = plan.patch_shape, network_sizes(plan.recipe.network)
    if plan.recipe.network.is_custom:
        return
    working = plan.recipe.preprocessing.working_shape(tuple(shape)[-len(planned) :])
    whole = sizes.legal_shape([size + 2 * sizes.margin for size in working])
    for factor in PATCH_SIDES:
        sides = [math.ceil(factor * size) for size in planned]
        least = [min(MIN_PATCH[len(planned)], size) for size in planned]
        sides = [max(side, few) for side, few in zip(sides, least, strict=True)]
        limited = [min(side, most) for side, most in zip(sides, whole, strict=True)]
        found = sizes.legal_shape(limited)
        relative = math.prod(found) / math.prod(planned)
        if relative <= 2 / 3 or relative >= 3 / 2:
            yield found


def _widths(plan: Plan) -> Iterator[tuple[int, ...]]:
    """Yield wider networks if there is time for them, and narrower ones if it is a wide one."""
    network, train = plan.recipe.network, plan.recipe.train
    if network.is_custom or network.has_encoder:
        return
    widths, is_cpu = resolved(network.widths), plan.machine.device == "cpu"
    is_long = not is_cpu or train.minutes is None or train.minutes >= WIDE_FROM_MINUTES
    for factor in WIDTHS:
        if (factor > 1 and is_long) or (factor < 1 and min(widths) >= 32):
            yield tuple(max(8, round(factor * width / 8) * 8) for width in widths)


def _augmentations(plan: Plan) -> SearchedSetting:
    values = {}
    for name, strength in STRENGTHS.items():
        changed = exaggerate(plan.augment, strength)
        if changed != plan.augment:
            values[name] = _as_yaml(_difference(changed, AugmentConfig()))
    return SearchedSetting(key="augment", planned="", values=values)


def _difference(one: AugmentConfig, usual: AugmentConfig) -> dict[str, Any]:
    """Return the values of a configuration that differ from the usual ones."""
    own, other = config.to_dict(one), config.to_dict(usual)
    return {
        section: {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in values.items()
            if value != other[section][key]
        }
        for section, values in own.items()
    }


def _losses(plan: Plan) -> SearchedSetting:
    """Return other losses if the planned one is the usual one."""
    terms = plan.recipe.loss.terms
    is_usual = terms == LossConfig().terms
    return _texts("loss.terms", _as_yaml(dict(terms)), LOSSES if is_usual else ())
