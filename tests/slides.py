"""Whole-slide images that look like those of Aperio, with JPEG tiles, a thumbnail and a label."""

import numpy as np
import tifffile

DESCRIPTION = "Aperio Image Library v11.2.1 \r\n{size}"


def blobs(shape=(600, 800), seed=0):
    """A slide (y, x, 3) of pale tissue with dark disks, and its mask (y, x)."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, np.uint8)
    for _ in range(12):
        row, column, radius = rng.integers(0, shape[0]), rng.integers(0, shape[1]), 40
        mask[(y - row) ** 2 + (x - column) ** 2 < radius**2] = 1
    image = np.where(mask[..., None] > 0, (180, 90, 160), (235, 225, 230))
    noisy = image + rng.normal(0, 6, (*shape, 3))
    return noisy.clip(0, 255).astype(np.uint8), mask


def reduce(image, factor):
    """Averages of squares of `factor` pixels."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    whole = image[: height * factor, : width * factor]
    squares = whole.reshape(height, factor, width, factor, -1)
    return squares.mean(axis=(1, 3)).round().astype(image.dtype)


def write_svs(path, image, mpp=0.25, factors=(4, 16), tile=128, compression="jpeg"):
    """Write a slide; `mpp` None states no resolution."""
    height, width = image.shape[:2]
    facts = DESCRIPTION.format(size=f"{width}x{height} [0,0 {width}x{height}] ({tile}x{tile})")
    facts += "" if mpp is None else f"|AppMag = 40|MPP = {mpp}"
    options = {"photometric": "rgb", "compression": compression, "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(image, tile=(tile, tile), description=facts, **options)
        file.write(image[::8, ::8], description=facts, rowsperstrip=16, **options)
        for factor in factors:
            file.write(reduce(image, factor), tile=(tile, tile), description=facts, **options)
        for name, subfile in (("label", 1), ("macro", 9)):
            file.write(
                np.zeros((30, 40, 3), np.uint8),
                description=f"Aperio Image Library\r\n{name} 40x30",
                subfiletype=subfile,
                rowsperstrip=30,
                photometric="rgb",
                compression="lzw",
                metadata=None,
            )
    return path
