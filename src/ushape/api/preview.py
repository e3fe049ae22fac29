"""Draw augmented training patches, and the border weight map of a mask."""

from __future__ import annotations

import io as bytes_io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ushape import config, io
from ushape.api.plan import scan_for
from ushape.console import Console
from ushape.data.cache import SampleStore
from ushape.errors import ConfigError, DataError, check_range
from ushape.formatting import pluralize
from ushape.instances.contours import class_styles, drawing_colors
from ushape.io.files import refuse_existing_output, write_bytes
from ushape.labels.colors import rgb_text
from ushape.planning.data_settings import apply_data_settings
from ushape.planning.hardware import inspect_machine
from ushape.planning.loading import build_patches
from ushape.planning.plan import Plan
from ushape.planning.planner import make_plan
from ushape.planning.recipe import Recipe, with_some_rate
from ushape.planning.recipes import load_recipe
from ushape.transforms.augment import exaggerate
from ushape.transforms.border_weights import border_weights, find_objects, separate_touching
from ushape.transforms.overlay import overlay
from ushape.types import CaseFacts, select_cases

PATCHES, ROWS, COLUMNS = 24, 4, 7
"""Number of patches of a preview, and its grid of cells; the other cells show the image, its
mask, its histogram and the weights of the first patch."""


def preview(
    data: Path | str,
    *,
    masks: Path | str | None = None,
    output: Path | str = "preview.png",
    recipe: Recipe | str = "auto",
    strength: float = 1.0,
    settings: Iterable[str] = (),
    groups: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Draw augmented patches of a training case.

    The picture shows 24 patches as the network will see them, the image with its mask, the
    histograms of the normalized image and patch, and the pixel weights of the first patch.

    Args:
        data: Folder with images and masks, or a table of them.
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'.
        output: PNG file.
        recipe: Name of a recipe (see `ushape recipes`), a YAML file, or FILE.py:FUNCTION.
        strength: Factor by which the augmentation is exaggerated; 1 is the strength in training.
        settings: Recipe setting as key=value, e.g. train.batch_size=2 (repeatable).
        groups: How to group cases so that a group never spans two splits: a regular expression
            matched against case IDs, a table column, or `none` to treat every image as its own
            group (default: taken from the data, or inferred).
        overwrite: Replace existing outputs.
        quiet: Print nothing.

    Raises:
        ConfigError: if the strength is negative.
        DataError: if the data cannot be used.
        RunError: if the output exists.
    """
    check_range("strength", strength, 0, hint="1 is as in training; 4 makes the changes visible.")
    console, target = Console(quiet=quiet), free_png(Path(output), overwrite)
    plan, facts = plan_one_epoch(data, masks, recipe, settings, "cpu", console, groups)
    shown = max(facts, key=lambda fact: sum(fact.class_pixels[1:]))
    stronger = replace(plan.recipe, augment=exaggerate(plan.augment, strength))
    figure = _draw_preview(replace(plan, recipe=stronger), shown)
    exaggerated = "" if strength == 1 else f", augmentation multiplied by {strength:g}"
    figure.suptitle(f"{plan.recipe.name}: {shown.case.id}, {PATCHES} patches{exaggerated}")
    save_png(figure, target)
    console.say(f"Preview: {target}")
    return target


def weight_map(
    mask: Path | str,
    *,
    output: Path | str = "weights.png",
    w0: float = 10.0,
    sigma: float = 5.0,
    instances: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Draw the border weight map of a mask.

    Args:
        mask: Mask file.
        output: PNG file.
        w0: Largest border weight.
        sigma: Width of the border in pixels.
        instances: Treat each value of the mask as one object; touching objects are separated.
        overwrite: Replace existing outputs.
        quiet: Print nothing.

    Raises:
        DataError: if the mask cannot be read, or contains no object.
        RunError: if the output exists.
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
            f"{mask} contains no objects, and therefore no borders.",
            code="no_foreground",
            hint="Choose a mask with foreground.",
        )
    found = border_weights(objects, w0=w0, sigma=sigma)
    save_png(_draw_weights(objects, found, f"w0 = {w0:g}, sigma = {sigma:g} pixels"), target)
    alone = " (only pixels between two objects have a weight)" if count == 1 else ""
    facts = f"{pluralize(count, 'object')}, largest weight {found.max():.2f}{alone}"
    Console(quiet=quiet).say(f"Weight map: {target} ({facts})")
    return target


def _draw_weights(objects: np.ndarray, weights: np.ndarray, title: str) -> Figure:
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(_middle(weights), cmap="inferno")
    axes.contour(_middle(objects) > 0, levels=[0.5], colors="white", linewidths=0.5)
    figure.colorbar(shown, label="added to the weight of the pixel's class")
    count = len(np.unique(objects[objects > 0]))
    axes.set_title(f"{pluralize(count, 'object')}, {title}")
    axes.axis("off")
    return figure


def plan_one_epoch(
    data: Path | str,
    masks: Path | str | None,
    recipe: Recipe | str,
    settings: Iterable[str],
    device: str,
    console: Console,
    groups: str | None = None,
) -> tuple[Plan, list[CaseFacts]]:
    """Return a plan for one epoch, without measuring the speed, and its training cases."""
    chosen, note = apply_data_settings(load_recipe(recipe), Path(data))
    if note:
        console.say(note)
    chosen = with_some_rate(config.override(chosen, settings))
    train = replace(chosen.train, epochs=1, minutes=None)
    machine = inspect_machine(device)
    found = scan_for(replace(chosen, groups=groups or chosen.groups), data, masks, console)
    found.raise_if_unusable()
    planned = make_plan(found, replace(chosen, train=train), machine, elapsed_s=lambda: 0.0)
    return planned.plan, select_cases(found.facts, planned.splits.train)


def _draw_preview(plan: Plan, shown: CaseFacts) -> Figure:
    store = SampleStore([shown.case], plan.preprocessing, keep=True)
    store.load_all(1)
    class_pixels = np.asarray([shown.class_pixels])
    dataset = build_patches(plan.recipe, plan.preprocessing, store, class_pixels)
    patches = [dataset[0, index] for index in range(PATCHES)]

    figure = Figure(figsize=(2 * COLUMNS, 2.1 * ROWS), layout="constrained")
    cells: list[Axes] = list(figure.subplots(ROWS, COLUMNS).ravel())
    sample = store[0]
    assert sample.classes is not None
    space = plan.preprocessing.space
    colors = drawing_colors(class_styles(space.names, space.values, plan.encoding))
    middle = plan.preprocessing.without_neighbors(sample.image)
    _show(cells[0], overlay(middle, 0 * sample.classes), "image")
    _show(cells[1], overlay(0 * middle, sample.classes, colors, tint=1), "mask")
    margin = dataset.margin
    inner = tuple(slice(margin, size - margin) for size in plan.patch_shape)
    for cell, patch in zip(cells[2:], patches, strict=False):
        classes = space.decode(patch["target"].numpy())
        image = plan.preprocessing.without_neighbors(patch["image"].numpy())
        image = image[(slice(None), *inner)]
        _show(cell, overlay(image, classes, colors, tint=0), "")
    handles = [
        Patch(color=rgb_text(color), label=name)
        for name, color in list(zip(space.names, colors, strict=True))[1:]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize="small")
    first = patches[0]["image"].numpy()
    for values, name in (
        (sample.normalization.apply(sample.image), "image"),
        (first, "first patch"),
    ):
        cells[-2].hist(values.ravel(), bins=60, density=True, histtype="step", label=name)
    cells[-2].legend(fontsize="x-small")
    cells[-2].set_title("normalized intensities", fontsize="small")
    weight = _middle(patches[0]["weight"][0].numpy())
    if weight.min() < weight.max():
        span = f"{weight.min():.3g} to {weight.max():.3g}"
        _show(cells[-1], weight, f"its weights, {span}", "inferno")
    else:
        cells[-1].axis("off")
        cells[-1].text(0.5, 0.5, "all pixels have\nthe same weight", ha="center", va="center")
    return figure


def _show(axes: Axes, picture: np.ndarray, title: str, colors: str = "gray") -> None:
    axes.imshow(picture, cmap=colors)
    axes.set_title(title, fontsize="small")
    axes.axis("off")


def _middle(array: np.ndarray) -> np.ndarray:
    """Return a 2D array unchanged, and the middle plane of a 3D one."""
    return array if array.ndim == 2 else array[len(array) // 2]


def free_png(path: Path, overwrite: bool) -> Path:
    """Return the path if a PNG file may be written there.

    Raises:
        ConfigError: if the suffix is not .png.
        RunError: if the file exists and is not to be replaced.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(
            f"{path} does not end in .png.", code="not_png", hint="Example: -o picture.png"
        )
    refuse_existing_output(path, overwrite)
    return path


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, completely or not at all."""
    content = bytes_io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_bytes(path, content.getvalue())
