"""Runs with small networks of random weights, for the tests of exports."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ushape.data.preprocessing import Preprocessing
from ushape.data.splits import Splits
from ushape.inference.decision_rule import ClassRule, DecisionRule
from ushape.inference.tuning import Tuning, save_tuning
from ushape.io.files import CHECKSUM
from ushape.labels import LabelSpace
from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.types import Case, CaseFacts, MaskEncoding

PLAN = Path(__file__).parent / "golden" / "earlier_plan.json"

CELLS = LabelSpace(values=(0, 255), names=("background", "cell"))
TISSUES = LabelSpace(values=(0, 3, 300), names=("background", "fat", "bone"))

NETWORK = {
    "widths": (4, 6),
    "stem": 1,
    "strides": "equal",
    "kernels": "equal",
    "encoder": "none",
    "encoder_weights": "none",
    "deep_supervision": 0,
    "norm": "batch",
}


def write_run(
    folder,
    *,
    space=CELLS,
    channels=1,
    network=None,
    by_slice=False,
    tta="none",
    normalization=None,
    thresholds=None,
    labels=None,
    separation="none",
    seed=0,
    **preprocessing,
):
    """Write a run folder with a plan, random weights and thresholds.

    Args:
        network: Fields of NetworkConfig.
        thresholds: Rule of each class, by name.
        labels: Fields of LabelConfig.
        separation: How objects are separated.
        preprocessing: Fields of PreprocessingConfig.
    """
    values = json.loads(PLAN.read_text())
    values.pop(CHECKSUM)
    plan = Plan.from_dict(values, source=str(PLAN))
    own = NetworkConfig(**{**NETWORK, **(network or {})})
    config = replace(plan.preprocessing.config, **{"downscale": 1, **preprocessing})
    recipe = replace(
        plan.recipe,
        network=own,
        preprocessing=config,
        labels=replace(plan.recipe.labels, **(labels or {})),
        predict=replace(
            plan.recipe.predict,
            tta=tta,
            objects=replace(plan.recipe.predict.objects, separation=separation),
            tile_shape=(64,) * own.dims,
            mirror_axes=tuple(range(-own.dims, 0)),
        ),
        sampling=replace(plan.recipe.sampling, patch_shape=(64,) * own.dims),
    )
    plan = replace(
        plan,
        recipe=recipe,
        encoding=MaskEncoding(dtype="uint16", suffix=".tif"),
        preprocessing=Preprocessing(
            channels=channels,
            config=config,
            space=space,
            normalization=normalization,
            by_slice=by_slice,
        ),
    )
    run = Run.create(folder)
    run.save_plan(plan)
    run.save_weights(random_weights(plan, seed), {})
    rules = {name: ClassRule(threshold=value) for name, value in (thresholds or {}).items()}
    save_tuning(run, Tuning(rule=DecisionRule(classes=rules)))
    return run


def random_weights(plan, seed):
    """Weights whose norms have seen data, and whose outputs are neither 0 nor 1 everywhere."""
    torch.manual_seed(seed)
    preprocessing = plan.preprocessing
    module = build_model(
        plan.recipe.network, preprocessing.input_channels, preprocessing.space.outputs
    )
    weights = module.state_dict()
    for name, value in weights.items():
        if value.is_floating_point() and value.ndim == 1:
            spread = torch.rand(value.shape) / 2
            value.copy_(spread + 0.5 if "var" in name or "weight" in name else spread - 0.25)
    return weights


def add_test_images(run, folder, shape=(96, 120), foreground=(0.5, 0.1, 0.3)):
    """Write test images of a run whose masks have different shares of the last class.

    Args:
        folder: New folder of the data.
        shape: Size along each axis.
        foreground: Share of each image along its first axis.
    """
    plan, facts = run.load_plan(), []
    random, last = np.random.default_rng(0), plan.preprocessing.space.values[-1]
    for number, share in enumerate(foreground):
        mask = np.zeros(shape, np.uint16)
        mask[: int(share * shape[0])] = last
        noise = random.integers(0, 100, (plan.preprocessing.channels, *shape))
        files = [folder / kind / f"case{number}.npy" for kind in ("images", "masks")]
        for path, array in zip(files, ((noise + mask % 200).astype(np.uint8), mask), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
        case = Case(id=f"case{number}", image=files[0], mask=files[1], group=f"case{number}")
        facts.append(CaseFacts(case, (1,) * len(plan.preprocessing.space.values)))
    run.save_cases(folder, facts, "checksum")
    names = tuple(fact.case.id for fact in facts)
    Splits(train=(), validation=(), test=names, text="Three test cases.").save(run.splits_path)
