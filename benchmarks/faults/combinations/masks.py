"""Masks: how class indices are stored."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from combinations.images import Stored, itk, npy, pillow, tiff

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
    return pillow(classes * 255, "JPEG", quality=85)


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
    "0/1": MaskForm(lambda c, _: Stored(".png", pillow(c, "PNG"))),
    "0/255": MaskForm(lambda c, _: Stored(".png", pillow(c * 255, "PNG"))),
    "0/254": MaskForm(lambda c, _: Stored(".png", pillow(c * 254, "PNG"))),
    "1 bit": MaskForm(lambda c, _: Stored(".png", _one_bit(c, "PNG"))),
    "1-bit TIFF, G4": MaskForm(
        lambda c, _: Stored(".tif", _one_bit(c, "TIFF", compression="group4"))
    ),
    "palette": MaskForm(lambda c, _: Stored(".png", _palette_png(c))),
    "black and white as RGB": MaskForm(
        lambda c, _: Stored(".png", pillow(np.repeat(c[..., None] * 255, 3, axis=2), "PNG"))
    ),
    "one color": MaskForm(lambda c, _: Stored(".png", pillow(COLORS[c], "PNG")), are_colors=True),
    "0/255, .PNG": MaskForm(lambda c, _: Stored(".PNG", pillow(c * 255, "PNG"))),
    "black and white as RGBA": MaskForm(
        lambda c, _: Stored(".png", pillow(_black_and_white_alpha(c), "PNG"))
    ),
    "16-bit PNG 0/65535": MaskForm(
        lambda c, _: Stored(".png", pillow(c.astype(np.uint16) * 65535, "PNG"))
    ),
    "float TIFF": MaskForm(lambda c, _: Stored(".tif", tiff(c.astype(np.float32)))),
    "TIFF 0/255": MaskForm(lambda c, _: Stored(".tif", tiff(c * 255))),
    "TIFF, LZW": MaskForm(lambda c, _: Stored(".tif", tiff(c, compression="lzw"))),
    "WhiteIsZero TIFF": MaskForm(
        lambda c, _: Stored(".tif", tiff(255 - c * 255, photometric="miniswhite"))
    ),
    "bool NPY": MaskForm(lambda c, _: Stored(".npy", npy(c.astype(bool)))),
    "0/1 among 0/255": MaskForm(
        lambda c, i: Stored(".png", pillow(c if i % 3 == 1 else c * 255, "PNG"))
    ),
    "RGB among gray": MaskForm(
        lambda c, i: Stored(
            ".png",
            pillow(np.repeat(c[..., None] * 255, 3, axis=2) if i % 4 == 1 else c * 255, "PNG"),
        )
    ),
    "1 bit among 0/255": MaskForm(
        lambda c, i: Stored(".png", _one_bit(c, "PNG") if i % 4 == 2 else pillow(c * 255, "PNG"))
    ),
    "JPEG": MaskForm(lambda c, _: Stored(".jpg", _soft(c)), exact=False),
    "three classes": MaskForm(lambda c, _: Stored(".png", pillow(c, "PNG")), classes=3),
    "0, 128, 255": MaskForm(
        lambda c, _: Stored(".png", pillow(np.array([0, 128, 255], np.uint8)[c], "PNG")), classes=3
    ),
    "0, 100, 200": MaskForm(lambda c, _: Stored(".png", pillow(c * 100, "PNG")), classes=3),
    "palette of three": MaskForm(lambda c, _: Stored(".png", _palette_png(c)), classes=3),
    "colors": MaskForm(lambda c, _: Stored(".png", pillow(COLORS[c], "PNG")), 4, are_colors=True),
    "16-bit TIFF": MaskForm(lambda c, _: Stored(".tif", tiff(c.astype(np.uint16))), classes=3),
}


VOLUME_MASKS: dict[str, MaskForm] = {
    "NIfTI 0/1": MaskForm(lambda c, _: itk(c, ".nii.gz")),
    "NIfTI, two structures": MaskForm(lambda c, _: itk(c, ".nii.gz"), classes=3),
    "NIfTI, mirrored": MaskForm(lambda c, _: itk(c, ".nii.gz", "LPS"), classes=3, is_oriented=True),
    "NRRD, axes exchanged": MaskForm(
        lambda c, _: itk(c, ".nrrd", "PIR"), classes=2, is_oriented=True
    ),
    "NIfTI 0.0/1.0": MaskForm(lambda c, _: itk(c.astype(np.float64), ".nii")),
    "NIfTI 0/255": MaskForm(lambda c, _: itk(c * 255, ".nii.gz")),
    "NRRD, two structures": MaskForm(lambda c, _: itk(c.astype(np.int16), ".nrrd"), classes=3),
    "TIFF stack 0/255": MaskForm(lambda c, _: Stored(".tif", tiff(c * 255))),
    "TIFF stack 0/1": MaskForm(lambda c, _: Stored(".tif", tiff(c, compression="zlib"))),
    "NPY stack": MaskForm(lambda c, _: Stored(".npy", npy(c)), classes=3),
}
"""Encodings of masks (z, y, x)."""
