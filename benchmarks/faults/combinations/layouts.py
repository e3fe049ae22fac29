"""Layouts: where images and masks lie."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from combinations.images import Stored, pillow
from combinations.scene import Scene


@dataclass
class Files:
    """The files of a data set before they are placed."""

    scenes: list[Scene]
    images: list[Stored]
    masks: list[Stored]
    affix: tuple[str, str]

    def mask_name(self, index: int) -> str:
        """Path of a mask below its folder: the name of its image with the affix.

        Accents are decomposed, as some systems write them.
        """
        folder, slash, name = self.scenes[index].stem.rpartition("/")
        before, after = self.affix
        path = f"{folder}{slash}{before}{name}{after}{self.masks[index].suffix}"
        return unicodedata.normalize("NFD", path)

    def image_name(self, index: int) -> str:
        return self.scenes[index].stem + self.images[index].suffix


Layout = Callable[[Path, Files], dict[int, tuple[Path, Path]]]
"""Returns the place of image and mask by index."""


def _two_folders(images: str, masks: str) -> Layout:
    def place(root: Path, files: Files) -> dict[int, tuple[Path, Path]]:
        return {
            index: (root / images / files.image_name(index), root / masks / files.mask_name(index))
            for index in range(len(files.scenes))
        }

    return place


def _beside(root: Path, files: Files) -> dict[int, tuple[Path, Path]]:
    if not any(files.affix):
        files = replace(files, affix=("", "_mask"))
    return {
        index: (root / files.image_name(index), root / files.mask_name(index))
        for index in range(len(files.scenes))
    }


def _folder_per_case(root: Path, files: Files) -> dict[int, tuple[Path, Path]]:
    return {
        index: (
            root / scene.stem / f"image{files.images[index].suffix}",
            root / scene.stem / f"mask{files.masks[index].suffix}",
        )
        for index, scene in enumerate(files.scenes)
    }


def _nested(root: Path, files: Files) -> dict[int, tuple[Path, Path]]:
    junk = root / "__MACOSX" / "images" / "._a.png"
    junk.parent.mkdir(parents=True)
    junk.write_bytes(b"\0\5\x16\7")
    return _two_folders("data-main/images", "data-main/masks")(root, files)


def _table(root: Path, files: Files) -> dict[int, tuple[Path, Path]]:
    places = _two_folders("x", "y")(root, files)
    rows = ["image;mask"]
    for image, mask in places.values():
        rows.append(
            ";".join(str(path.relative_to(root)).replace("/", "\\") for path in (image, mask))
        )
    (root / "pairs.csv").write_bytes("\r\n".join([*rows, ""]).encode())
    return places


def _nnunet(root: Path, files: Files) -> dict[int, tuple[Path, Path]]:
    suffix = files.masks[0].suffix
    names = {"background": 0, **{f"kind{n}": n for n in range(1, 4)}}
    top = max(int(scene.classes.max()) for scene in files.scenes)
    info = {
        "channel_names": {"0": "light"},
        "labels": {name: value for name, value in names.items() if value <= top},
        "numTraining": len(files.scenes),
        "file_ending": suffix,
    }
    (root / "dataset.json").write_text(json.dumps(info))
    return {
        index: (
            root / "imagesTr" / f"{scene.stem.replace('/', '_')}_0000{files.images[index].suffix}",
            root / "labelsTr" / f"{scene.stem.replace('/', '_')}{suffix}",
        )
        for index, scene in enumerate(files.scenes)
    }


def _split(root: Path, files: Files) -> dict[int, tuple[Path, Path]]:
    """Folders of the parts of a split, with whole subjects."""
    places = {}
    for index, scene in enumerate(files.scenes):
        part = root / SPLIT_FOLDERS[min(max(scene.subject - 3, 0), 2)]
        places[index] = (
            part / "images" / files.image_name(index), part / "masks" / files.mask_name(index),
        )  # fmt: skip
    return places


def _folder_per_class(root: Path, files: Files) -> dict[int, tuple[Path, Path]]:
    """One mask of black and white for each image and class; those of class 1 are the places."""
    for index, scene in enumerate(files.scenes):
        for value, name in enumerate(CLASS_NAMES[1:3], start=1):
            content = pillow((scene.classes == value).astype(np.uint8) * 255, "PNG")
            path = root / "masks" / name / f"{scene.stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if value == 1:
                files.masks[index] = Stored(".png", content)
    masks = root / "masks" / CLASS_NAMES[1]
    return {
        index: (root / "images" / files.image_name(index), masks / f"{scene.stem}.png")
        for index, scene in enumerate(files.scenes)
    }


def _coco(root: Path, files: Files) -> dict[int, tuple[Path, Path]]:
    """Run lengths in the file of COCO; it is the place of every mask."""
    info: dict[str, list[dict[str, object]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 5 * n, "name": CLASS_NAMES[n]} for n in (1, 2)],
    }
    for index, scene in enumerate(files.scenes):
        height, width = scene.classes.shape
        name = files.image_name(index)
        info["images"].append({"id": index, "file_name": name, "height": height, "width": width})
        for value in (1, 2):
            drawn = (scene.classes == value).ravel(order="F").astype(np.int8)
            if not drawn.any():
                continue
            changes = np.flatnonzero(np.diff(drawn)) + 1
            counts = np.diff([0, *([0] if drawn[0] else []), *changes, drawn.size]).tolist()
            info["annotations"].append(
                {
                    "id": len(info["annotations"]) + 1,
                    "image_id": index,
                    "category_id": 5 * value,
                    "segmentation": {"size": [height, width], "counts": counts},
                    "area": int(drawn.sum()),
                    "bbox": [0, 0, width, height],
                    "iscrowd": 1,
                }
            )
    path = root / "annotations" / "instances.json"
    files.masks[:] = [Stored(".json", json.dumps(info).encode())] * len(files.scenes)
    return {
        index: (root / "images" / files.image_name(index), path)
        for index in range(len(files.scenes))
    }


SPLIT_FOLDERS = {0: "train", 1: "val", 2: "test"}
PARTS = {"train": "train", "val": "validation", "test": "test"}
CLASS_NAMES = ("background", "nucleus", "vessel", "debris")

SEVERAL_MASKS = ("folder per class", "COCO")
"""Layouts in which one file is not the mask of one image; they have a form of their own."""

LAYOUTS: dict[str, Layout] = {
    "images/ masks/": _two_folders("images", "masks"),
    "Images/ Labels/": _two_folders("Images", "Labels"),
    "JPEGImages/ SegmentationClass/": _two_folders("JPEGImages", "SegmentationClass"),
    "img/ gt/": _two_folders("img", "gt"),
    "raw/ annotations/": _two_folders("raw", "annotations"),
    "scans/ outlines/": _two_folders("scans", "outlines"),
    "beside": _beside,
    "folder per case": _folder_per_case,
    "nested once": _nested,
    "table": _table,
    "nnU-Net": _nnunet,
    "train/ val/ test/": _split,
    "folder per class": _folder_per_class,
    "COCO": _coco,
}


AFFIXES = (
    ("", ""), ("", ""), ("", "_mask"), ("", "-labels"), ("", "_P"), ("", "_anno"), ("mask_", ""),
    ("", "_Simple Segmentation"), ("Mask of ", ""), ("", "_cp_masks"), ("", "_zorg"),
    ("gt-", ""), ("", ".segmentation"),
)  # fmt: skip
