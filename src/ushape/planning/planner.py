"""Turns a recipe, the data, the machine and the minutes into a plan, rule by rule."""

from __future__ import annotations

from dataclasses import replace

from ushape.planning.recipe import Recipe
from ushape.planning.rules import RULES
from ushape.planning.rules.decision import Decision, Situation, source_of


def plan_recipe(recipe: Recipe, situation: Situation) -> tuple[Recipe, list[Decision]]:
    """Applies all rules but the last, `plan_duration`, which needs the measured speed."""
    decisions = []
    for rule in RULES:
        recipe, decision = rule(recipe, situation)
        decisions.append(replace(decision, source=source_of(rule)))
    return recipe, decisions
