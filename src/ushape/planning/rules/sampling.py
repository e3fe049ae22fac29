"""Rule for the patches that are centered on foreground, and on which of its classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ushape.config import AUTO, resolved
from ushape.data.sampling import check_ratios
from ushape.planning.fingerprint import ClassFacts, Fingerprint
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, Situation, change

SHOWING_FOREGROUND = 0.5
"""Share of the patches that should contain any foreground."""

SHOWING_CLASS = 1 / 3
"""Share of the patches that should contain a class, if there are several foreground classes."""

MAX_SOUGHT = 0.5
"""Largest share of the patches that are centered on rare classes; the others show what whole images
look like."""

NAMED_CLASSES = 3
"""Number of oversampled classes that the plan lists."""


@dataclass(frozen=True)
class Draws:
    """Patches that are centered on foreground."""

    fraction: float
    class_ratios: tuple[float, ...] | None = None
    """Ratios of the foreground classes in them; None: equal ones."""


def choose_sampling(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose the share of patches centered on foreground, and on which of its classes.

    Half of all patches should show foreground, and with several foreground classes a third of them
    the rarest class.

    Raises:
        ConfigError: if the recipe has ratios of another number of classes.
    """
    source = (
        "Half of the patches should contain foreground. If randomly placed patches do so, none is "
        "centered on it. nnU-Net always centers a third of the patches on foreground, which only "
        "improves results if foreground is rare. With several classes, each should be in a third "
        "of the patches: rare classes are sought, those that random patches contain are not "
        "(benchmarks/plan.md)."
    )
    sampling, data = recipe.sampling, situation.data
    if sampling.strategy != "foreground":
        recipe = change(recipe, "sampling", foreground_fraction=0.0)
        text = f"Sampling: random patches of cases (strategy {sampling.strategy})."
        return recipe, RuleResult(text=text, fact="set by the user", source=source)
    given = sampling.class_ratios
    if given is not None and data.classes:
        check_ratios(given, len(data.classes))
    seen = data.foreground_cases * _chance_of_any(recipe, data)
    seen_classes = [own.cases * _chance_of_class(recipe, data, own) for own in data.classes]
    if sampling.foreground_fraction != AUTO:
        draws = Draws(float(sampling.foreground_fraction), given)
    elif len(data.classes) > 1:
        draws = draw_classes(seen, seen_classes, given)
    else:
        draws = Draws(round(_lacking(seen, SHOWING_FOREGROUND), 2), given)
    recipe = change(
        recipe,
        "sampling",
        foreground_fraction=draws.fraction,
        class_ratios=draws.class_ratios,
    )
    share = f"{draws.fraction:.0%} of" if draws.fraction else "none of"
    fact = f"about {seen:.0%} of randomly placed patches contain foreground"
    known = [(chance, own.name) for chance, own in zip(seen_classes, data.classes, strict=True)]
    if len(known) > 1:
        chance, name = min(pair for pair in known if pair[0])
        fact += f", and {chance:.0%} the rarest class, {name}"
    return recipe, RuleResult(
        text=f"Sampling: {share} the patches are centered on "
        f"{_what(draws, data.classes)}, which is present in {data.foreground_cases:.0%} of the "
        "training cases.",
        fact=fact,
        alternative="sampling.foreground_fraction=0.33, with equal ratios of all classes",
        source=source,
    )


def draw_classes(
    seen: float, seen_classes: Sequence[float], given_ratios: tuple[float, ...] | None = None
) -> Draws:
    """Return the draws with which each class is in a third of the patches.

    If all classes together need more than MAX_SOUGHT, a lower goal is set, the same for all of
    them. Patches that are centered on one class and show another one are not counted.

    Args:
        seen: Share of randomly placed patches that contain any foreground, 0 to 1.
        seen_classes: Share of them that contain each class; 0 for a class that does not occur.
        given_ratios: Ratios of the classes in the draws, if the user sets them.
    """

    def needs(goal: float) -> list[float]:
        return [_lacking(chance, goal) if chance else 0.0 for chance in seen_classes]

    floor = _lacking(seen, SHOWING_FOREGROUND)
    if given_ratios is not None:
        pairs = zip(needs(SHOWING_CLASS), given_ratios, strict=True)
        most = max(need * sum(given_ratios) / ratio for need, ratio in pairs if ratio)
        return Draws(round(max(floor, min(MAX_SOUGHT, most)), 2), given_ratios)
    low = high = SHOWING_CLASS
    if sum(needs(high)) > MAX_SOUGHT:
        low = 0.0
        for _ in range(30):  # Bisection.
            middle = (low + high) / 2
            low, high = (middle, high) if sum(needs(middle)) <= MAX_SOUGHT else (low, middle)
    found = needs(low)
    total = sum(found)
    ratios = tuple(round(need / total, 4) for need in found) if total else None
    return Draws(round(max(floor, total), 2), ratios)


def _lacking(chance: float, goal: float) -> float:
    """Return the share of draws that raises the share of patches from a chance to a goal."""
    return max(0.0, (goal - chance) / max(1e-6, 1 - chance))


def _what(draws: Draws, classes: Sequence[ClassFacts]) -> str:
    """Return "foreground", with the classes that are sought most."""
    ratios = draws.class_ratios
    if ratios is None or not draws.fraction or len(ratios) != len(classes):
        return "foreground"
    named = sorted(zip(ratios, (own.name for own in classes), strict=True), reverse=True)
    sought = [(ratio / sum(ratios), name) for ratio, name in named if ratio]
    listed = [f"{share:.0%} on {name}" for share, name in sought[:NAMED_CLASSES]]
    more = len(sought) - NAMED_CLASSES
    others = [f"the others on {more} more classes"] if more > 0 else []
    return f"foreground ({', '.join([*listed, *others])})"


def _chance_of_any(recipe: Recipe, data: Fingerprint) -> float:
    """Estimate the probability that a random patch shows foreground of a case that has some.

    Objects are treated as boxes at random positions.
    """
    patch, shape, scale = _sizes(recipe, data)
    side = data.object_size * scale
    reach = [min(1.0, (size + side) / whole) for size, whole in zip(patch, shape, strict=True)]
    return min(1.0, data.objects_per_case * math.prod(reach))


def _chance_of_class(recipe: Recipe, data: Fingerprint, own: ClassFacts) -> float:
    """Estimate the same for one class of several.

    A patch shows the class if it contains the center of an object, or lies within one: a corner of
    an object is not enough to learn a rare class. Objects lie independently of each other.
    """
    patch, shape, scale = _sizes(recipe, data)
    side = own.object_size * scale
    chance = math.prod(
        min(1.0, max(size, side) / whole) for size, whole in zip(patch, shape, strict=True)
    )
    return 1 - (1 - chance) ** own.objects_per_case


def _sizes(recipe: Recipe, data: Fingerprint) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    """Return the patch and the median image in working pixels, and working pixels per pixel."""
    shape = recipe.preprocessing.working_shape(data.median_shape)
    return resolved(recipe.sampling.patch_shape), shape, shape[-1] / data.median_shape[-1]
