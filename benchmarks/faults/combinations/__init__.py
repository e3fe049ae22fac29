"""Random data sets with a known right reading: names, layouts, formats, mask encodings, damage.

Each part of a combination is a row of a table: NAMES, LAYOUTS, IMAGES, MASKS and DAMAGES, each in a
module of its own. A new one is a function and a line. `draw` picks one row of each; `write` makes
the folder and returns what is right for it. Everything follows from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from combinations.damage import DAMAGES, Folder
from combinations.images import IMAGES, VOLUMES
from combinations.layouts import AFFIXES, CLASS_NAMES, LAYOUTS, PARTS, SEVERAL_MASKS, Files
from combinations.masks import MASKS, VOLUME_MASKS, MaskForm
from combinations.names import NAMES
from combinations.scene import Scene, Truth, draw_scene

SOUND_SHARE = 0.6
"""Share of the combinations without damage."""

EMPTY_SHARE = 0.25
"""Share of the combinations in which some masks are empty."""

VOLUME_SHARE = 0.15
"""Share of the combinations of volumes."""


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One row of each table."""

    seed: int
    names: str
    layout: str
    image: str
    mask: str
    damage: str
    affix: tuple[str, str]
    """What the names of masks have before and after the name of their image."""

    subjects: int
    per_subject: int

    has_empty: bool
    """Whether the masks of some images are empty."""

    def __str__(self) -> str:
        affix = "…".join(self.affix)
        return (
            f"{self.seed}: {self.names}; {self.layout}; {self.image}; {self.mask}; "
            f"affix {affix!r}; {self.subjects} x {self.per_subject}"
            f"{', some empty' if self.has_empty else ''}; {self.damage}"
        )


def draw(seed: int) -> Combination:
    """Draw one row of each table."""
    rng = random.Random(seed)
    sound = rng.random() < SOUND_SHARE
    damages = ["sound"] if sound else [name for name in DAMAGES if name != "sound"]
    layout, names = rng.choice(list(LAYOUTS)), rng.choice(list(NAMES))
    mask, image = rng.choice(list(MASKS)), rng.choice(list(IMAGES))
    if rng.random() < VOLUME_SHARE:
        mask, image = rng.choice(list(VOLUME_MASKS)), rng.choice(list(VOLUMES))
        if VOLUME_MASKS[mask].is_oriented:
            image = rng.choice([name for name in VOLUMES if "TIFF" not in name])
    if layout == "nnU-Net":  # Its masks hold 0, 1, 2, ... in one format.
        mask = rng.choice(["0/1", "three classes"])
        image = "gray PNG"
    if layout in SEVERAL_MASKS:
        mask, image = "three classes", rng.choice(list(IMAGES))
    whole_files = [
        name for name in damages if name in ("sound", "further files", "truncated image")
    ]
    if layout in SEVERAL_MASKS:
        damages = whole_files
    if layout == "nnU-Net":  # Its dataset.json names the classes.
        damages = [name for name in damages if name != "class table"]
    return Combination(
        seed=seed,
        names=names,
        layout=layout,
        image=image,
        mask=mask,
        damage=rng.choice(damages),
        affix=rng.choice(AFFIXES),
        subjects=rng.randint(5, 7),
        per_subject=rng.randint(2, 4),
        has_empty=rng.random() < EMPTY_SHARE,
    )


def write(combination: Combination, root: Path) -> Truth:
    """Write the data set into an empty folder."""
    rng = random.Random(combination.seed + 1)
    is_volume = combination.image in VOLUMES
    form = form_of(combination)
    store = (VOLUMES if is_volume else IMAGES)[combination.image]
    name, tells_subject = NAMES[combination.names]
    scenes = [
        draw_scene(subject, number, name(subject, number, rng), form.classes, is_volume, rng)
        for subject in range(1, combination.subjects + 1)
        for number in range(1, combination.per_subject + 1)
    ]
    if combination.has_empty:
        for scene in scenes[1::4]:
            scene.classes[:] = 0
    images = [store(scene.gray, n) for n, scene in enumerate(scenes)]
    masks = [form.store(scene.classes, n) for n, scene in enumerate(scenes)]
    files = Files(scenes, images, masks, combination.affix)
    places = LAYOUTS[combination.layout](root, files)
    for index, paths in places.items():
        for path, stored in zip(paths, (images[index], masks[index]), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stored.content)
    truth = Truth(data=root, pairs=len(scenes), groups=None, shares=())
    folder = Folder(root, places, truth, form)
    if tells_subject:
        truth.groups = _groups(places, scenes)
    if combination.layout in SEVERAL_MASKS:
        truth.names = CLASS_NAMES[:3]
    if combination.layout == "train/ val/ test/":
        truth.parts = {str(i): PARTS[i.relative_to(root).parts[0]] for i, _ in places.values()}
    DAMAGES[combination.damage](folder, rng)
    if combination.layout == "table" and combination.damage == "image without mask":
        truth.refusal = "listed_files_missing"
    if truth.groups is not None and folder.broken:
        kept = {index: both for index, both in places.items() if index not in folder.broken}
        truth.groups = _groups(kept, scenes)
    truth.classes = {
        str(places[index][0]): scenes[folder.copies.get(index, index)].classes
        for index in range(len(scenes))
        if index not in folder.broken
    }
    usable = np.concatenate([one.ravel() for one in truth.classes.values()])
    counts = np.bincount(usable, minlength=form.classes)
    truth.shares = tuple((counts / counts.sum()).tolist())
    return truth


def _groups(
    places: dict[int, tuple[Path, Path]], scenes: Sequence[Scene]
) -> frozenset[frozenset[str]]:
    found: dict[int, set[str]] = {}
    for index, (image, _) in places.items():
        found.setdefault(scenes[index].subject, set()).add(str(image))
    return frozenset(frozenset(names) for names in found.values())


def form_of(combination: Combination) -> MaskForm:
    """Return the encoding of the masks."""
    return (MASKS | VOLUME_MASKS)[combination.mask]
