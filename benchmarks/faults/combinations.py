"""Random data sets with a known right reading: names, layouts, formats, mask encodings, damage.

Each part of a combination is a row of a table: NAMES, LAYOUTS, IMAGES, MASKS and DAMAGES. A new
one is a function and a line. `draw` picks one row of each; `write` makes the folder and returns
what is right for it. Everything follows from the seed.
"""

from __future__ import annotations

import io
import json
import random
import string
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK
import tifffile
from PIL import Image

SIDE = 64
"""Smallest side of an image in pixels."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image with its true classes."""

    subject: int
    number: int
    """Number of the image among those of its subject."""

    stem: str
    """Path below the image folder, without suffix."""

    gray: np.ndarray
    """(y, x) or (z, y, x) uint8."""

    classes: np.ndarray
    """Class indices of the same shape, uint8; 0 is the background."""


@dataclass(kw_only=True)
class Truth:
    """What is right for a folder."""

    data: Path
    """Path to pass to ushape."""

    pairs: int
    groups: frozenset[frozenset[str]] | None
    """Names of the images of each group; None if each image may be a group of its own or if
    neighbors may be joined."""

    shares: tuple[float, ...]
    """Share of each class over all readable masks, background first."""

    names: tuple[str, ...] = ()
    """Names of the classes, background first, if the data state them."""

    classes: dict[str, np.ndarray] = field(default_factory=dict)
    """True classes of each usable image, by the path of the image."""

    parts: dict[str, str] = field(default_factory=dict)
    """Part of the split of each image by its path, if the data state a split."""

    finding: str = ""
    """A check that must report a problem; '' if there is none."""

    refusal: str = ""
    """Code of the error that refuses the data; '' if they must be read."""

    culprit: str = ""
    """Name of the damaged file's case, which that finding must mention."""


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


# --- Names: the path of an image below its folder, and whether subjects are visible in it. ---

Name = Callable[[int, int, random.Random], str]


def _patient_frame(subject: int, number: int, _: random.Random) -> str:
    return f"patient{subject:03d}_frame{number:02d}"


def _letters(subject: int, number: int, _: random.Random) -> str:
    return f"S{subject}F{number}"


def _words(subject: int, number: int, _: random.Random) -> str:
    return f"mouse{subject}_section{number}"


def _tiles(subject: int, number: int, _: random.Random) -> str:
    return f"slide{subject}_x{number * 96:04d}_y{number % 2 * 192:04d}"


def _sections(subject: int, number: int, _: random.Random) -> str:
    return f"P{subject:02d}_z{number:03d}"


def _bids(subject: int, number: int, _: random.Random) -> str:
    return f"sub-{subject:02d}_ses-{number}_T1w"


def _sides(subject: int, number: int, _: random.Random) -> str:
    side = ("left", "right")[number % 2]
    return f"{subject * 7}_{side}" + (str(number // 2) if number > 1 else "")


def _codes(subject: int, number: int, _: random.Random) -> str:
    code = "".join(random.Random(subject).choices(string.ascii_uppercase + string.digits, k=5))
    return f"A_{subject}{code}_{('ED', 'ES', 'MD', 'LD')[number % 4]}"


def _folders(subject: int, number: int, _: random.Random) -> str:
    return f"case{subject:02d}/{number:03d}"


def _dashes(subject: int, number: int, _: random.Random) -> str:
    return f"TCGA-{subject:04d}-{number}"


def _umlauts(subject: int, number: int, _: random.Random) -> str:
    return f"Größe {subject} Aufnahme {number}"


def _dots(subject: int, number: int, _: random.Random) -> str:
    return f"scan.{subject}.{number}"


def _numbered(subject: int, number: int, _: random.Random) -> str:
    return f"img_{subject * 10 + number:04d}"


def _hashes(subject: int, number: int, _: random.Random) -> str:
    return f"{random.Random(subject * 100 + number).getrandbits(64):016x}"


def _bare(subject: int, number: int, _: random.Random) -> str:
    return str(subject * 10 + number)


def _isic(subject: int, number: int, _: random.Random) -> str:
    return f"ISIC_00{24300 + subject * 10 + number * 3}"


NAMES: dict[str, tuple[Name, bool]] = {
    "patient001_frame01": (_patient_frame, True),
    "S1F1": (_letters, True),
    "mouse1_section1": (_words, True),
    "slide1_x0096_y0192": (_tiles, True),
    "P01_z001": (_sections, True),
    "sub-01_ses-1_T1w": (_bids, True),
    "7_left": (_sides, True),
    "A_1X7O4T_ED": (_codes, True),
    "case01/001": (_folders, True),
    "TCGA-0001-1": (_dashes, True),
    "Größe 1 Aufnahme 1": (_umlauts, True),
    "scan.1.1": (_dots, False),
    "img_0010": (_numbered, False),
    "hash": (_hashes, False),
    "10": (_bare, False),
    "ISIC_0024310": (_isic, False),
}
"""Function that makes the name, and whether the name tells the subject."""


# --- Images: how the gray values are stored. ---


@dataclass(frozen=True)
class Stored:
    """A file to write: its suffix and its bytes."""

    suffix: str
    content: bytes


def _pillow(array: np.ndarray, form: str, **options: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(array).save(target, format=form, **options)  # type: ignore[arg-type]
    return target.getvalue()


def _tiff(array: np.ndarray, **options: object) -> bytes:
    target = io.BytesIO()
    tifffile.imwrite(target, array, **options)  # type: ignore[arg-type]
    return target.getvalue()


def _npy(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


def _colored(gray: np.ndarray) -> np.ndarray:
    return np.stack([gray, 255 - gray // 2, gray // 2 + 40], axis=-1).astype(np.uint8)


def _with_alpha(gray: np.ndarray) -> np.ndarray:
    rgb = _colored(gray)
    return np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)


def _turned(gray: np.ndarray, index: int) -> bytes:
    """Photograph of a camera that was turned, except for every third one."""
    exif = Image.Exif()
    exif[0x0112] = 6 if index % 3 else 1
    stored = np.rot90(_colored(gray)) if index % 3 else _colored(gray)
    return _pillow(np.ascontiguousarray(stored), "JPEG", quality=90, exif=exif)


IMAGES: dict[str, Callable[[np.ndarray, int], Stored]] = {
    "gray PNG": lambda gray, _: Stored(".png", _pillow(gray, "PNG")),
    "RGB PNG": lambda gray, _: Stored(".png", _pillow(_colored(gray), "PNG")),
    "RGBA PNG": lambda gray, _: Stored(".png", _pillow(_with_alpha(gray), "PNG")),
    "RGB JPEG": lambda gray, _: Stored(".jpg", _pillow(_colored(gray), "JPEG", quality=90)),
    "gray JPEG, .JPG": lambda gray, _: Stored(".JPG", _pillow(gray, "JPEG", quality=90)),
    "RGB JPEG, turned by EXIF": lambda gray, index: Stored(".jpg", _turned(gray, index)),
    "gray PNG, .PNG": lambda gray, _: Stored(".PNG", _pillow(gray, "PNG")),
    "RGBA TIFF": lambda gray, _: Stored(
        ".tif", _tiff(_with_alpha(gray), photometric="rgb", extrasamples=["unassalpha"])
    ),
    "TIFF, .TIF": lambda gray, _: Stored(".TIF", _tiff(gray)),
    "BMP": lambda gray, _: Stored(".bmp", _pillow(_colored(gray), "BMP")),
    "WebP": lambda gray, _: Stored(".webp", _pillow(_colored(gray), "WEBP", lossless=True)),
    "PGM": lambda gray, _: Stored(".pgm", _pillow(gray, "PPM")),
    "TIFF": lambda gray, _: Stored(".tif", _tiff(gray)),
    "TIFF, LZW": lambda gray, _: Stored(".tif", _tiff(gray, compression="lzw")),
    "TIFF, 16 bits": lambda gray, _: Stored(".tiff", _tiff(gray.astype(np.uint16) * 200)),
    "TIFF, float": lambda gray, _: Stored(".tif", _tiff(gray.astype(np.float32) / 255)),
    "TIFF, RGB planar": lambda gray, _: Stored(
        ".tif",
        _tiff(_colored(gray).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
    ),
    "NPY": lambda gray, _: Stored(".npy", _npy(gray)),
    "PNG named .jpg": lambda gray, _: Stored(".jpg", _pillow(_colored(gray), "PNG")),
    "gray among RGB": lambda gray, index: Stored(
        ".png", _pillow(gray if index % 5 == 1 else _colored(gray), "PNG")
    ),
}
"""Function of the gray values and the index of the image among all."""


def _itk(array: np.ndarray, suffix: str, orientation: str = "") -> Stored:
    """Store a volume; with an orientation, its axes are exchanged and mirrored to that one."""
    picture = SimpleITK.GetImageFromArray(array)
    picture.SetSpacing((0.8, 0.8, 3.0))
    picture.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    if orientation:
        picture = SimpleITK.DICOMOrient(picture, orientation)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        SimpleITK.WriteImage(picture, str(path))
        return Stored(suffix, path.read_bytes())


VOLUMES: dict[str, Callable[[np.ndarray, int], Stored]] = {
    "NIfTI": lambda gray, _: _itk(gray, ".nii"),
    "NIfTI, gzip, 16 bits": lambda gray, _: _itk(gray.astype(np.int16) * 4 - 100, ".nii.gz"),
    "NIfTI, float": lambda gray, _: _itk(gray.astype(np.float32) / 9, ".nii.gz"),
    "NRRD": lambda gray, _: _itk(gray, ".nrrd"),
    "MetaImage": lambda gray, _: _itk(gray.astype(np.uint16), ".mha"),
    "TIFF stack": lambda gray, _: Stored(".tif", _tiff(gray)),
    "TIFF stack, ImageJ": lambda gray, _: Stored(
        ".tif", _tiff(gray.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    ),
    "TIFF stack, LZW": lambda gray, _: Stored(".tif", _tiff(gray, compression="lzw")),
}
"""Functions like those of IMAGES for (z, y, x)."""


# --- Masks: how class indices are stored. ---

COLORS = np.array([[0, 0, 0], [220, 20, 60], [0, 128, 255], [240, 230, 40]], dtype=np.uint8)


def _palette_png(classes: np.ndarray) -> bytes:
    picture = Image.fromarray(classes, mode="P")
    picture.putpalette(COLORS.ravel().tolist())
    target = io.BytesIO()
    picture.save(target, format="PNG")
    return target.getvalue()


def _one_bit(classes: np.ndarray, form: str, **options: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(classes > 0).convert("1").save(target, format=form, **options)  # type: ignore[arg-type]
    return target.getvalue()


def _black_and_white_alpha(classes: np.ndarray) -> np.ndarray:
    white = np.repeat(classes[..., None] * 255, 4, axis=2)
    white[..., 3] = 255
    return white


def _soft(classes: np.ndarray) -> bytes:
    return _pillow(classes * 255, "JPEG", quality=85)


@dataclass(frozen=True)
class MaskForm:
    """An encoding of masks."""

    store: Callable[[np.ndarray, int], Stored]
    classes: int = 2
    exact: bool = True
    """Whether the true classes can be recovered without any wrong pixel."""

    are_colors: bool = False
    """Whether each class has a color of COLORS, and no number."""

    is_oriented: bool = False
    """Whether the axes have other directions than those of the image, as both headers state."""


MASKS: dict[str, MaskForm] = {
    "0/1": MaskForm(lambda c, _: Stored(".png", _pillow(c, "PNG"))),
    "0/255": MaskForm(lambda c, _: Stored(".png", _pillow(c * 255, "PNG"))),
    "0/254": MaskForm(lambda c, _: Stored(".png", _pillow(c * 254, "PNG"))),
    "1 bit": MaskForm(lambda c, _: Stored(".png", _one_bit(c, "PNG"))),
    "1-bit TIFF, G4": MaskForm(
        lambda c, _: Stored(".tif", _one_bit(c, "TIFF", compression="group4"))
    ),
    "palette": MaskForm(lambda c, _: Stored(".png", _palette_png(c))),
    "black and white as RGB": MaskForm(
        lambda c, _: Stored(".png", _pillow(np.repeat(c[..., None] * 255, 3, axis=2), "PNG"))
    ),
    "one color": MaskForm(lambda c, _: Stored(".png", _pillow(COLORS[c], "PNG")), are_colors=True),
    "0/255, .PNG": MaskForm(lambda c, _: Stored(".PNG", _pillow(c * 255, "PNG"))),
    "black and white as RGBA": MaskForm(
        lambda c, _: Stored(".png", _pillow(_black_and_white_alpha(c), "PNG"))
    ),
    "16-bit PNG 0/65535": MaskForm(
        lambda c, _: Stored(".png", _pillow(c.astype(np.uint16) * 65535, "PNG"))
    ),
    "float TIFF": MaskForm(lambda c, _: Stored(".tif", _tiff(c.astype(np.float32)))),
    "TIFF 0/255": MaskForm(lambda c, _: Stored(".tif", _tiff(c * 255))),
    "TIFF, LZW": MaskForm(lambda c, _: Stored(".tif", _tiff(c, compression="lzw"))),
    "WhiteIsZero TIFF": MaskForm(
        lambda c, _: Stored(".tif", _tiff(255 - c * 255, photometric="miniswhite"))
    ),
    "bool NPY": MaskForm(lambda c, _: Stored(".npy", _npy(c.astype(bool)))),
    "0/1 among 0/255": MaskForm(
        lambda c, i: Stored(".png", _pillow(c if i % 3 == 1 else c * 255, "PNG"))
    ),
    "RGB among gray": MaskForm(
        lambda c, i: Stored(
            ".png",
            _pillow(np.repeat(c[..., None] * 255, 3, axis=2) if i % 4 == 1 else c * 255, "PNG"),
        )
    ),
    "1 bit among 0/255": MaskForm(
        lambda c, i: Stored(".png", _one_bit(c, "PNG") if i % 4 == 2 else _pillow(c * 255, "PNG"))
    ),
    "JPEG": MaskForm(lambda c, _: Stored(".jpg", _soft(c)), exact=False),
    "three classes": MaskForm(lambda c, _: Stored(".png", _pillow(c, "PNG")), classes=3),
    "0, 128, 255": MaskForm(
        lambda c, _: Stored(".png", _pillow(np.array([0, 128, 255], np.uint8)[c], "PNG")), classes=3
    ),
    "0, 100, 200": MaskForm(lambda c, _: Stored(".png", _pillow(c * 100, "PNG")), classes=3),
    "palette of three": MaskForm(lambda c, _: Stored(".png", _palette_png(c)), classes=3),
    "colors": MaskForm(lambda c, _: Stored(".png", _pillow(COLORS[c], "PNG")), 4, are_colors=True),
    "16-bit TIFF": MaskForm(lambda c, _: Stored(".tif", _tiff(c.astype(np.uint16))), classes=3),
}


VOLUME_MASKS: dict[str, MaskForm] = {
    "NIfTI 0/1": MaskForm(lambda c, _: _itk(c, ".nii.gz")),
    "NIfTI, two structures": MaskForm(lambda c, _: _itk(c, ".nii.gz"), classes=3),
    "NIfTI, mirrored": MaskForm(
        lambda c, _: _itk(c, ".nii.gz", "LPS"), classes=3, is_oriented=True
    ),
    "NRRD, axes exchanged": MaskForm(
        lambda c, _: _itk(c, ".nrrd", "PIR"), classes=2, is_oriented=True
    ),
    "NIfTI 0.0/1.0": MaskForm(lambda c, _: _itk(c.astype(np.float64), ".nii")),
    "NIfTI 0/255": MaskForm(lambda c, _: _itk(c * 255, ".nii.gz")),
    "NRRD, two structures": MaskForm(lambda c, _: _itk(c.astype(np.int16), ".nrrd"), classes=3),
    "TIFF stack 0/255": MaskForm(lambda c, _: Stored(".tif", _tiff(c * 255))),
    "TIFF stack 0/1": MaskForm(lambda c, _: Stored(".tif", _tiff(c, compression="zlib"))),
    "NPY stack": MaskForm(lambda c, _: Stored(".npy", _npy(c)), classes=3),
}
"""Encodings of masks (z, y, x)."""


# --- Layouts: where images and masks lie. ---


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
            content = _pillow((scene.classes == value).astype(np.uint8) * 255, "PNG")
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


# --- Damage: a change to the files, and the finding that must name it. ---


@dataclass
class Folder:
    """A data set that was written, before it is damaged."""

    root: Path
    places: dict[int, tuple[Path, Path]]
    truth: Truth
    form: MaskForm
    broken: set[int] = field(default_factory=set)
    """Indices of the pairs that cannot be used."""

    copies: dict[int, int] = field(default_factory=dict)
    """Indices of the pairs that were replaced by another pair."""


def _none(folder: Folder, rng: random.Random) -> None:
    pass


def _junk(folder: Folder, rng: random.Random) -> None:
    """Files that every folder collects change nothing."""
    image, mask = folder.places[0]
    (image.parent / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (mask.parent / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder.root / "README.txt").write_text("Images of cells.\n")
    (folder.root / "LICENSE").write_text("CC BY 4.0\n")


def _class_table(folder: Folder, rng: random.Random) -> None:
    """A table of the classes, by color if the masks have no numbers."""
    names = folder.truth.names = CLASS_NAMES[: folder.form.classes]
    if folder.form.are_colors:
        colors = [",".join(map(str, color)) for color in COLORS[: len(names)].tolist()]
        rows = [f"{name}:{color}::" for name, color in zip(names, colors, strict=True)]
        text = "\n".join(["# label:color_rgb:parts:actions", *rows, ""])
        (folder.root / "labelmap.txt").write_text(text)
    else:
        (folder.root / "classes.txt").write_text("\n".join([*names, ""]))


def _truncated(folder: Folder, rng: random.Random) -> None:
    index = rng.randrange(len(folder.places))
    path = folder.places[index][0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    _break(folder, index, "unreadable")


def _zero_bytes(folder: Folder, rng: random.Random) -> None:
    index = rng.randrange(len(folder.places))
    folder.places[index][1].write_bytes(b"")
    _break(folder, index, "zero_bytes")


def _other_size(folder: Folder, rng: random.Random) -> None:
    index = rng.randrange(len(folder.places))
    mask = np.zeros((SIDE + 31, SIDE + 5), dtype=np.uint8)
    path = folder.places[index][1]
    form = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF"}.get(path.suffix)
    if form is not None:
        path.write_bytes(_pillow(mask, form))
    elif path.suffix == ".npy":
        path.write_bytes(_npy(mask))
    else:
        suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
        path.write_bytes(_itk(np.stack([mask] * 7), suffix).content)
    _break(folder, index, "size")


def _no_mask(folder: Folder, rng: random.Random) -> None:
    index = rng.randrange(len(folder.places))
    folder.places[index][1].unlink()
    _break(folder, index, "unpaired")
    folder.truth.pairs -= 1


def _copy(folder: Folder, rng: random.Random) -> None:
    """The same image and mask in two groups."""
    first, last = folder.places[0], folder.places[len(folder.places) - 1]
    if first[0].suffix == last[0].suffix and first[1].suffix == last[1].suffix:
        for original, copy in zip(first, last, strict=True):
            copy.write_bytes(original.read_bytes())
        parts = {folder.truth.parts.get(str(image)) for image in (first[0], last[0])}
        folder.truth.finding = "duplicate_across_groups" if len(parts) == 1 else "split"
        folder.truth.groups = None
        folder.copies[len(folder.places) - 1] = 0


DAMAGES: dict[str, Callable[[Folder, random.Random], None]] = {
    "sound": _none,
    "further files": _junk,
    "class table": _class_table,
    "truncated image": _truncated,
    "empty mask file": _zero_bytes,
    "mask of another size": _other_size,
    "image without mask": _no_mask,
    "copied image": _copy,
}
DAMAGES_OF_IMAGES = ("sound", "further files", "truncated image")
SOUND_SHARE = 0.6
"""Share of the combinations without damage."""

EMPTY_SHARE = 0.25
"""Share of the combinations in which some masks are empty."""

VOLUME_SHARE = 0.15
"""Share of the combinations of volumes."""


def _break(folder: Folder, index: int, finding: str) -> None:
    folder.broken.add(index)
    folder.truth.finding = finding
    image = folder.places[index][0]
    name = image.parent.name if image.stem == "image" else image.name
    folder.truth.culprit = name.partition(".")[0].removesuffix("_0000")


# --- A combination as a whole. ---


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
        _scene(subject, number, name(subject, number, rng), form.classes, is_volume, rng)
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


def _scene(
    subject: int, number: int, stem: str, classes: int, is_volume: bool, rng: random.Random
) -> Scene:
    """Draw ellipses of each class on a background that is unlike that of any other scene."""
    noise = np.random.default_rng(rng.getrandbits(32))
    sides = [SIDE + rng.randrange(0, 40) for _ in range(2)]
    shape = (rng.randrange(6, 12), *sides) if is_volume else tuple(sides)
    axes = np.indices(shape).astype(np.float32)
    truth = np.zeros(shape, dtype=np.uint8)
    for index in range(1, classes):
        for _ in range(rng.randint(1, 3)):
            distance = np.zeros(shape, dtype=np.float32)
            for place, side in zip(axes, shape, strict=True):
                margin = min(12, side // 3)
                center = rng.uniform(margin, side - margin)
                distance += ((place - center) / rng.uniform(margin / 2.4, margin)) ** 2
            truth[distance < 1] = index
    y, x = axes[-2:]
    angle, wave = rng.uniform(0, 3), rng.uniform(0.05, 0.3)
    ground = 60 + 25 * np.sin(wave * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6))
    gray = ground + 50 * truth + noise.normal(0, 6, shape)
    return Scene(
        subject=subject,
        number=number,
        stem=stem,
        gray=gray.clip(0, 255).astype(np.uint8),
        classes=truth,
    )
