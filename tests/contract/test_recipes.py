"""Promises of every recipe: it plans, its network is the published one, its first steps train."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ushape import config
from ushape.config import resolved
from ushape.data.cache import SampleStore
from ushape.data.sampling import build_draw
from ushape.data.scan import scan_dataset
from ushape.losses import build_loss
from ushape.models import build_model
from ushape.planning.hardware import inspect_machine
from ushape.planning.planner import make_plan
from ushape.planning.recipes import RECIPES, load_recipe
from ushape.training.datamodule import SegmentationData
from ushape.training.module import SegmentationModule

PUBLISHED = {
    # Channels in, out, weights, patch, output.
    "unet2015": (1, 2, 31_030_658, 572, 388),
    "isbi2012": (1, 1, 31_030_593, 572, 388),
    "lgg-onecycle": (3, 1, 31_031_745, 256, 256),
    "lgg-buda": (3, 1, 7_763_041, 256, 256),
    "lgg-bce-dice": (3, 1, 7_782_913, 256, 256),
    "carvana-original": (3, 1, 31_390_721, 572, 388),
    "carvana-1024": (3, 1, 35_371_873, 1024, 1024),
}


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Four patients of three slices, gray levels in a range of their own, one slice empty."""
    folder = tmp_path_factory.mktemp("patients")
    rng = np.random.default_rng(0)
    for patient in range(6):
        (folder / f"p{patient}").mkdir()
        for number in range(3):
            image = rng.integers(20, 200, (40, 48, 3)).astype(np.uint8)
            mask = np.zeros((40, 48), np.uint8)
            if number:
                mask[10:20, 8:18] = mask[10:20, 22:30] = 255
                image[mask > 0] //= 2
            for name, array in (("", image), ("_mask", mask)):
                path = folder / f"p{patient}" / f"p{patient}_{number}{name}.png"
                Image.fromarray(array).save(path)
    return folder


def shrunk(recipe):
    """The same recipe with a network and patches that a test can afford."""
    network = recipe.network
    if network.widths != "auto":
        widths = (4, 6, 8)
        narrow = None if network.decoder_widths is None else (4, 6)
        network = replace(network, widths=widths, decoder_widths=narrow)
    patch = (92, 92) if network.padding == "valid" else (32, 32)
    shape = None if recipe.preprocessing.shape is None else (40, 40)
    train = replace(
        recipe.train, minutes=None, epochs=1, steps_per_epoch=2, batch_size=2, precision="fp32"
    )
    return replace(
        recipe,
        network=network,
        sampling=replace(recipe.sampling, patch_shape=patch),
        preprocessing=replace(recipe.preprocessing, shape=shape, downscale=1),
        train=train,
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_network_is_the_published_one(name):
    recipe = load_recipe(name)
    channels, outputs, weights, side, output = PUBLISHED[name]
    with torch.device("meta"):
        network = build_model(recipe.network, channels, outputs)
    assert sum(parameter.numel() for parameter in network.parameters()) == weights
    image = torch.empty(1, channels, side, side, device="meta")
    assert network(image).shape[2:] == (output, output)
    patch = recipe.sampling.patch_shape
    assert patch in ("auto", (side, side))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_training_step_changes_the_weights_and_stays_finite(name, patients):
    recipe = shrunk(load_recipe(name))
    found = scan_dataset(patients, None, recipe.labels, workers=1)
    planned = make_plan(found, recipe, inspect_machine("cpu"), elapsed_s=lambda: 0.0)
    plan, splits = planned.plan, planned.splits
    facts = {fact.case.id: fact for fact in found.facts}
    store = SampleStore([facts[i].case for i in splits.train], plan.preprocessing, keep=False)
    pixels = np.asarray([facts[i].class_pixels for i in splits.train])
    torch.manual_seed(0)
    module = SegmentationModule(plan, store, [case.group for case in store.cases])
    data = SegmentationData(plan, store, store, pixels)

    module.train()
    optimizer = module.configure_optimizers()["optimizer"]
    before = [parameter.clone() for parameter in module.network.parameters()]
    loss_of = build_loss(plan.recipe.loss, plan.preprocessing.space, deep_supervision=False)
    for batch in data.train_dataloader():
        optimizer.zero_grad()
        loss = loss_of(module.network(batch["image"]), batch["target"], batch["weight"])
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    changed = [
        not torch.equal(old, new)
        for old, new in zip(before, module.network.parameters(), strict=True)
    ]
    assert all(changed)
    # The plan survives its file, and draws from every training case.
    stored = type(plan).from_dict(config.to_dict(plan), source="test")
    assert stored.recipe == plan.recipe
    draw = build_draw(plan.recipe.sampling, pixels, [case.group for case in store.cases])
    rng = np.random.default_rng(0)
    assert {draw.draw(rng).case_index for _ in range(2000)} == set(range(len(pixels)))
    assert resolved(plan.recipe.train.batch_size) == 2


def test_recipe_unet2015_weights_patches_by_border_and_class(patients):
    recipe = shrunk(load_recipe("unet2015"))
    found = scan_dataset(patients, None, recipe.labels, workers=1)
    planned = make_plan(found, recipe, inspect_machine("cpu"), elapsed_s=lambda: 0.0)
    plan, splits = planned.plan, planned.splits
    facts = {fact.case.id: fact for fact in found.facts}
    store = SampleStore([facts[i].case for i in splits.train], plan.preprocessing, keep=True)
    store.load_all(1)
    pixels = np.asarray([facts[i].class_pixels for i in splits.train])
    dataset = SegmentationData(plan, store, store, pixels).dataset
    counts = pixels.sum(axis=0)
    weights = torch.cat([dataset[0, index]["weight"].flatten() for index in range(12)])
    classes = torch.cat([dataset[0, index]["target"][1].flatten() for index in range(12)])
    rare = weights[classes == 1].unique()
    torch.testing.assert_close(rare, torch.tensor([counts[0] / counts[1]], dtype=torch.float32))
    # Four pixels lie between the two objects: up to 10 exp(-25 / 50) more.
    assert 1 + 3 < weights[classes == 0].max() < 11
    assert weights[classes == 0].min() == 1
