"""The rules of the planner. A new one is a function, with its source, and a line in RULES.

Each fills in the settings that are still "auto" and says why in one line.
"""

from __future__ import annotations

from ushape.planning.rules.images import choose_downscale, choose_intensity
from ushape.planning.rules.network import choose_network, choose_norm
from ushape.planning.rules.patches import choose_augmentation, choose_patch, choose_sampling
from ushape.planning.rules.result import Rule
from ushape.planning.rules.schedule import choose_prediction
from ushape.planning.rules.step import choose_batch, choose_hardware, choose_learning, choose_loss

RULES: tuple[Rule, ...] = (
    choose_downscale,
    choose_intensity,
    choose_network,
    choose_norm,
    choose_patch,
    choose_sampling,
    choose_augmentation,
    choose_prediction,
    choose_loss,
    choose_learning,
    choose_hardware,
    choose_batch,
)
