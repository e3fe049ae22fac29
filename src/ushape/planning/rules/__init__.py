"""Rules of the planner. A new one is a function with its source, and a line in RULES.

Each rule completes the settings that are still "auto" and explains its decision in one line.
"""

from __future__ import annotations

from ushape.planning.recipe import Recipe
from ushape.planning.rules.duration import choose_duration
from ushape.planning.rules.encoder import choose_encoder
from ushape.planning.rules.network import (
    choose_augmentation,
    choose_initial_weights,
    choose_intensity,
    choose_network,
    choose_norm,
)
from ushape.planning.rules.objects import choose_objects
from ushape.planning.rules.resolution import choose_downscale, choose_patch
from ushape.planning.rules.result import Rule, RuleResult, Situation
from ushape.planning.rules.sampling import choose_sampling
from ushape.planning.rules.slices import without_comparison
from ushape.planning.rules.training import (
    choose_batch,
    choose_hardware,
    choose_learning,
    choose_loss,
    choose_prediction,
    choose_split,
)

RULES: tuple[Rule, ...] = (
    choose_split,
    choose_encoder,
    choose_downscale,
    choose_objects,
    choose_intensity,
    choose_network,
    choose_norm,
    choose_initial_weights,
    choose_patch,
    choose_sampling,
    choose_augmentation,
    choose_prediction,
    choose_loss,
    choose_learning,
    choose_hardware,
    choose_batch,
    choose_duration,
)


def apply_rules(recipe: Recipe, situation: Situation) -> tuple[Recipe, list[RuleResult]]:
    """Apply all rules in order; return the complete recipe and the decisions."""
    recipe, results = without_comparison(recipe), []
    for rule in RULES:
        recipe, result = rule(recipe, situation)
        results.append(result)
    return recipe, results
