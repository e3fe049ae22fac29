"""Measure which copies of an image are found as near duplicates, and how many false alarms occur.

    python benchmarks/duplicates.py FOLDER [FOLDER ...] [--images N]

Each folder contains images of one data set. Ten kinds of copies are made of each image, and
compared with it as `ushape check` does; then all pairs of different images are compared. Prints
two Markdown tables: the share of copies that are found, and the pairs of different images that are
taken for near duplicates. Some of the latter are right: frames of one video, or one object twice.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import ushape.io
from ushape.data.duplicates import find_duplicate_images
from ushape.data.image_details import describe_details


def recompressed(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=30)
    return Image.open(content)


def bordered(image: Image.Image) -> Image.Image:
    width, height = image.size
    frame = Image.new(image.mode, (width + width // 5, height + height // 5))
    frame.paste(image, (width // 10, height // 10))
    return frame


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 20, height // 20, width - width // 20, height - height // 20))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed (JPEG, quality 30)": recompressed,
    "resized to 50 %": lambda image: image.resize((image.width // 2, image.height // 2)),
    "cropped to 90 %": cropped,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "rotated by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "rotated by 180 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "brighter by 30 %": lambda image: image.point(lambda value: min(255, 1.3 * value)),
    "blurred (sigma 1 % of the width)": lambda image: image.filter(
        ImageFilter.GaussianBlur(image.width / 100)
    ),
    "with a black border of 10 %": bordered,
    "gray": lambda image: image.convert("L").convert(image.mode),
}


def load(path: Path) -> Image.Image:
    """Return an image of 8 bits, gray or RGB; of a volume, the middle plane."""
    array = ushape.io.read(path).array
    array = array if array.ndim == 3 else array[:, array.shape[1] // 2]
    if array.dtype != np.uint8:
        low, high = np.percentile(array, (0.1, 99.9))
        array = ((array - low) / max(high - low, 1e-9) * 255).clip(0, 255).astype(np.uint8)
    return Image.fromarray(array[0] if len(array) < 3 else np.moveaxis(array[:3], 0, -1))


def details_of(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return describe_details(array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0))


def count_pairs(details: list[np.ndarray]) -> int:
    """Return the number of pairs that are taken for near duplicates."""
    names = [str(place) for place in range(len(details))]
    return len(list(find_duplicate_images(names, [name.encode() for name in names], details)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=25, help="number of images of each folder")
    options = parser.parse_args()
    found = dict.fromkeys(COPIES, 0)
    total, rows = 0, []
    for folder in options.folders:
        paths = sorted(path for path in folder.iterdir() if ushape.io.is_image(path))
        paths = paths[:: max(1, len(paths) // options.images)]
        images = [load(path) for path in paths]
        details = [details_of(image) for image in images]
        for image, own in zip(images, details, strict=True):
            for kind, make in COPIES.items():
                found[kind] += count_pairs([own, details_of(make(image))])
        total += len(images)
        pairs = len(images) * (len(images) - 1) // 2
        rows.append(f"| {folder.parent.name} | {len(images)} | {count_pairs(details)} of {pairs} |")
    print("| copy | found |\n|---|---|")
    print("\n".join(f"| {kind} | {number / total:.0%} |" for kind, number in found.items()))
    print("\n| data set | images | pairs taken for near duplicates |\n|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
