"""Verbs that show before they train: preview, weights, and the learning-rate range test."""

from __future__ import annotations

import io as bytes_io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ushape import config, io
from ushape.console import Console
from ushape.data.cache import SampleStore
from ushape.data.scan import scan_dataset
from ushape.errors import ConfigError, DataError, RunError
from ushape.formatting import pluralize
from ushape.io.files import write_bytes
from ushape.models import network_sizes
from ushape.planning.hardware import inspect_machine
from ushape.planning.plan import Plan
from ushape.planning.planner import make_plan
from ushape.planning.recipe import Recipe, with_some_rate
from ushape.planning.recipes import load_recipe
from ushape.training.datamodule import SegmentationData
from ushape.transforms.augment import exaggerate
from ushape.transforms.border_weights import border_weights, find_objects, separate_touching
from ushape.transforms.overlay import outline
from ushape.types import CaseFacts

DRAWS, ROWS, COLUMNS = 24, 4, 7
"""Of a preview: patches, and cells for them, the image, its mask, histogram and weights."""


def preview(
    data: Path | str,
    *,
    masks: Path | str | None = None,
    output: Path | str = "preview.png",
    recipe: Recipe | str = "auto",
    strength: float = 1.0,
    settings: Iterable[str] = (),
    overwrite: bool = False,
) -> Path:
    """Draws a training case as the network will see it: 24 patches with their masks outlined.

    Beside them the whole image with its mask, gray values of image and patch as the network gets
    them, and the weights of the first patch's pixels.

    Args:
        strength: Multiplies how much is changed, to make it visible; 1 is what trains.

    Raises:
        ConfigError: a strength below 0.
        DataError: the data cannot be used.
        RunError: the output exists.
    """
    if not strength >= 0:
        raise ConfigError(f"Strength {strength} is below 0.", hint="1 is what trains; try 4.")
    target = free_png(Path(output), overwrite)
    plan, facts = plan_one_epoch(data, masks, recipe, settings, "cpu")
    shown = max(facts, key=lambda fact: sum(fact.class_pixels[1:]))
    stronger = replace(plan.recipe, augment=exaggerate(plan.augment, strength))
    figure = _draw_preview(replace(plan, recipe=stronger), shown)
    exaggerated = "" if strength == 1 else f", changes {strength:g} times as strong"
    figure.suptitle(f"{plan.recipe.name}: {shown.case.id}, {DRAWS} patches{exaggerated}")
    save_png(figure, target)
    Console().say(f"Preview: {target}")
    return target


def weights(
    mask: Path | str,
    *,
    output: Path | str,
    w0: float = 10.0,
    sigma: float = 5.0,
    instances: bool = False,
    overwrite: bool = False,
) -> Path:
    """Draws the border weight map of a mask, with its scale.

    Args:
        instances: The mask's values are objects; touching ones get a line between them. False:
            everything above the lowest value is foreground, its connected parts are objects.

    Raises:
        DataError: unreadable, or a mask without objects.
        RunError: the output exists.
    """
    target = free_png(Path(output), overwrite)
    codes = io.read_mask(Path(mask)).codes
    if instances:
        objects = separate_touching(codes.astype(np.int64))
    else:
        objects = find_objects((codes > codes.min()).astype(np.uint8))
    count = len(np.unique(objects[objects > 0]))
    if count == 0:
        raise DataError(
            f"{mask}: no objects, so there are no borders.", hint="Choose a mask with foreground."
        )
    found = border_weights(objects, w0=w0, sigma=sigma)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(_middle(found), cmap="inferno")
    axes.contour(_middle(objects) > 0, levels=[0.5], colors="white", linewidths=0.5)
    figure.colorbar(shown, label="added to the weight of the pixel's class")
    axes.set_title(f"{pluralize(count, 'object')}, w0 = {w0:g}, sigma = {sigma:g} pixels")
    axes.axis("off")
    save_png(figure, target)
    alone = " (a border needs two objects)" if count == 1 else ""
    largest = f"largest weight {found.max():.2f}{alone}"
    Console().say(f"{pluralize(count, 'object')}, {largest}: {target}")
    return target


def plan_one_epoch(
    data: Path | str,
    masks: Path | str | None,
    recipe: Recipe | str,
    settings: Iterable[str],
    device: str,
) -> tuple[Plan, list[CaseFacts]]:
    """The plan that training would make, and its training cases; for one epoch of any length."""
    chosen = load_recipe(recipe)
    chosen = with_some_rate(config.override(chosen, settings))
    train = replace(chosen.train, epochs=1, minutes=None)
    machine = inspect_machine(device)
    found = scan_dataset(
        Path(data), Path(masks) if masks else None, chosen.labels, workers=machine.cores
    )
    found.raise_if_unusable()
    planned = make_plan(found, replace(chosen, train=train), machine, elapsed_s=lambda: 0.0)
    plan, splits = planned.plan, planned.splits
    facts = {fact.case.id: fact for fact in found.facts}
    return plan, [facts[case_id] for case_id in splits.train]


def _draw_preview(plan: Plan, shown: CaseFacts) -> Figure:
    store = SampleStore([shown.case], plan.preprocessing, keep=True)
    store.load_all(1)
    margin = network_sizes(plan.recipe.network).margin
    data = SegmentationData(plan, store, store, np.asarray([shown.class_pixels]), margin)
    patches = [data.dataset[0, index] for index in range(DRAWS)]

    figure = Figure(figsize=(2 * COLUMNS, 2.1 * ROWS), layout="constrained")
    cells: list[Axes] = list(figure.subplots(ROWS, COLUMNS).ravel())
    sample = store[0]
    assert sample.classes is not None
    _show(cells[0], outline(sample.image, 0 * sample.classes, 0 * sample.classes), "image")
    _show(cells[1], _middle(sample.classes), "mask")
    inner = tuple(slice(margin, size - margin) for size in plan.patch_shape)
    for cell, patch in zip(cells[2:], patches, strict=False):
        classes = plan.preprocessing.space.decode(patch["target"].numpy())
        image = patch["image"].numpy()[(slice(None), *inner)]
        _show(cell, outline(image, classes, 0 * classes), "")
    first = patches[0]["image"].numpy()
    for values, name in (
        (sample.normalization.apply(sample.image), "image"),
        (first, "first patch"),
    ):
        cells[-2].hist(values.ravel(), bins=60, density=True, histtype="step", label=name)
    cells[-2].legend(fontsize="x-small")
    cells[-2].set_title("gray values", fontsize="small")
    weight = _middle(patches[0]["weight"][0].numpy())
    if weight.min() < weight.max():
        span = f"{weight.min():.3g} to {weight.max():.3g}"
        _show(cells[-1], weight, f"its weights, {span}", "inferno")
    else:
        cells[-1].axis("off")
        cells[-1].text(0.5, 0.5, "all pixels\nweigh the same", ha="center", va="center")
    return figure


def _show(axes: Axes, picture: np.ndarray, title: str, colors: str = "gray") -> None:
    axes.imshow(picture, cmap=colors)
    axes.set_title(title, fontsize="small")
    axes.axis("off")


def _middle(array: np.ndarray) -> np.ndarray:
    """2D as it is; of a volume the middle plane."""
    return array if array.ndim == 2 else array[len(array) // 2]


def free_png(path: Path, overwrite: bool) -> Path:
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path} is no .png.", hint="E.g. -o picture.png.")
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists.", hint="--overwrite replaces it; or choose another -o.")
    return path


def save_png(figure: Figure, path: Path) -> None:
    content = bytes_io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_bytes(path, content.getvalue())
