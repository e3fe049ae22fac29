"""Images: how the gray values are stored."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
import tifffile
from PIL import Image


@dataclass(frozen=True)
class Stored:
    """A file to write: its suffix and its bytes."""

    suffix: str
    content: bytes


def pillow(array: np.ndarray, form: str, **options: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(array).save(target, format=form, **options)  # type: ignore[arg-type]
    return target.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    target = io.BytesIO()
    tifffile.imwrite(target, array, **options)  # type: ignore[arg-type]
    return target.getvalue()


def npy(array: np.ndarray) -> bytes:
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
    return pillow(np.ascontiguousarray(stored), "JPEG", quality=90, exif=exif)


IMAGES: dict[str, Callable[[np.ndarray, int], Stored]] = {
    "gray PNG": lambda gray, _: Stored(".png", pillow(gray, "PNG")),
    "RGB PNG": lambda gray, _: Stored(".png", pillow(_colored(gray), "PNG")),
    "RGBA PNG": lambda gray, _: Stored(".png", pillow(_with_alpha(gray), "PNG")),
    "RGB JPEG": lambda gray, _: Stored(".jpg", pillow(_colored(gray), "JPEG", quality=90)),
    "gray JPEG, .JPG": lambda gray, _: Stored(".JPG", pillow(gray, "JPEG", quality=90)),
    "RGB JPEG, turned by EXIF": lambda gray, index: Stored(".jpg", _turned(gray, index)),
    "gray PNG, .PNG": lambda gray, _: Stored(".PNG", pillow(gray, "PNG")),
    "RGBA TIFF": lambda gray, _: Stored(
        ".tif", tiff(_with_alpha(gray), photometric="rgb", extrasamples=["unassalpha"])
    ),
    "TIFF, .TIF": lambda gray, _: Stored(".TIF", tiff(gray)),
    "BMP": lambda gray, _: Stored(".bmp", pillow(_colored(gray), "BMP")),
    "WebP": lambda gray, _: Stored(".webp", pillow(_colored(gray), "WEBP", lossless=True)),
    "PGM": lambda gray, _: Stored(".pgm", pillow(gray, "PPM")),
    "TIFF": lambda gray, _: Stored(".tif", tiff(gray)),
    "TIFF, LZW": lambda gray, _: Stored(".tif", tiff(gray, compression="lzw")),
    "TIFF, 16 bits": lambda gray, _: Stored(".tiff", tiff(gray.astype(np.uint16) * 200)),
    "TIFF, float": lambda gray, _: Stored(".tif", tiff(gray.astype(np.float32) / 255)),
    "TIFF, RGB planar": lambda gray, _: Stored(
        ".tif",
        tiff(_colored(gray).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
    ),
    "NPY": lambda gray, _: Stored(".npy", npy(gray)),
    "PNG named .jpg": lambda gray, _: Stored(".jpg", pillow(_colored(gray), "PNG")),
    "gray among RGB": lambda gray, index: Stored(
        ".png", pillow(gray if index % 5 == 1 else _colored(gray), "PNG")
    ),
}
"""Function of the gray values and the index of the image among all."""


def itk(array: np.ndarray, suffix: str, orientation: str = "") -> Stored:
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
    "NIfTI": lambda gray, _: itk(gray, ".nii"),
    "NIfTI, gzip, 16 bits": lambda gray, _: itk(gray.astype(np.int16) * 4 - 100, ".nii.gz"),
    "NIfTI, float": lambda gray, _: itk(gray.astype(np.float32) / 9, ".nii.gz"),
    "NRRD": lambda gray, _: itk(gray, ".nrrd"),
    "MetaImage": lambda gray, _: itk(gray.astype(np.uint16), ".mha"),
    "TIFF stack": lambda gray, _: Stored(".tif", tiff(gray)),
    "TIFF stack, ImageJ": lambda gray, _: Stored(
        ".tif", tiff(gray.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    ),
    "TIFF stack, LZW": lambda gray, _: Stored(".tif", tiff(gray, compression="lzw")),
}
"""Functions like those of IMAGES for (z, y, x)."""
