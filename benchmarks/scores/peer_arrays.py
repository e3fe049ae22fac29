"""Images as the programs of `peer_training.py` read, scale, cut and predict them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Images (C, *S) and classes (*S) of a split; the slices of volumes can be images."""

    classes: int
    training: list[tuple[np.ndarray, np.ndarray]]
    validation: list[tuple[np.ndarray, np.ndarray]]
    test: list[np.ndarray]
    lengths: list[int]
    """Number of slices of each test case; 0 if it is one image."""


def load_slices(
    path: Path, scale: Callable[[np.ndarray], np.ndarray], *, volumes: bool = False
) -> Slices:
    """Load the arrays, with each image scaled by the program's own rule.

    Args:
        volumes: Whether volumes stay whole; otherwise they are divided into slices.
    """
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "validation": []}
    test: list[np.ndarray] = []
    lengths = []
    with np.load(path) as arrays:
        for name in sorted(key for key in arrays.files if key.endswith("/image")):
            image = scale(arrays[name].astype(np.float32))
            is_divided = image.ndim == 4 and not volumes
            images = list(np.moveaxis(image, 1, 0)) if is_divided else [image]
            part = name.partition("/")[0]
            if part == "test":
                test += images
                lengths.append(len(images) if is_divided else 0)
                continue
            mask = arrays[name.replace("/image", "/mask")]
            parts[part] += list(zip(images, mask if is_divided else [mask], strict=True))
        classes = int(arrays["classes"])
    return Slices(
        classes=classes,
        training=parts["train"],
        validation=parts["validation"],
        test=test,
        lengths=lengths,
    )


def to_unit(image: np.ndarray) -> np.ndarray:
    """Scale an image to [0, 1] by its own extremes, as MONAI's ScaleIntensity does."""
    low, high = image.min(), image.max()
    return (image - low) / max(high - low, 1e-8)


def to_imagenet(image: np.ndarray) -> np.ndarray:
    """Repeat a gray image to RGB, and normalize it as the pretrained encoders expect."""
    unit = to_unit(image) if image.max() > 255 else image / 255
    colors = np.repeat(unit, 3, axis=0) if len(unit) == 1 else unit[:3]
    shape = (3,) + (1,) * (colors.ndim - 1)
    return (colors - np.reshape(IMAGENET_MEAN, shape)) / np.reshape(IMAGENET_STD, shape)


def standardize(image: np.ndarray) -> np.ndarray:
    """Give each channel of an image a mean of 0 and a standard deviation of 1."""
    axes = tuple(range(1, image.ndim))
    return (image - image.mean(axes, keepdims=True)) / (image.std(axes, keepdims=True) + 1e-6)


def crop(
    image: np.ndarray,
    mask: np.ndarray,
    size: Sequence[int],
    rng: np.random.Generator,
    *,
    around: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a random window, around a foreground pixel if asked and possible; pad small images."""
    padding = [(0, max(0, side - length)) for side, length in zip(size, mask.shape, strict=True)]
    if any(after for _, after in padding):
        image, mask = np.pad(image, [(0, 0), *padding], "symmetric"), np.pad(mask, padding)
    most = np.subtract(mask.shape, size)
    corner = rng.integers(most + 1)
    if around and mask.any():
        places = np.argwhere(mask)
        middle = places[rng.integers(len(places))]
        corner = np.clip(middle - np.array(size) // 2, 0, most)
    window = tuple(
        slice(start, start + side) for start, side in zip(corner.tolist(), size, strict=True)
    )
    return image[:, *window], mask[window]


def turned(
    pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, *, flips: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Turn image and mask by a random number of quarters, and mirror them if asked."""
    quarters = int(rng.integers(4))
    image, mask = (np.rot90(array, quarters, (-2, -1)) for array in pair)
    if flips and rng.integers(2):
        image, mask = image[..., ::-1], mask[..., ::-1]
    return image, mask


def stack(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Return a batch: images (B, C, y, x) in float32 and classes (B, y, x)."""
    images = np.stack([np.ascontiguousarray(image) for image, _ in pairs]).astype(np.float32)
    masks = np.stack([np.ascontiguousarray(mask) for _, mask in pairs]).astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(masks)


def cross_entropy_and_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Return cross-entropy plus 1 - soft Dice of the foreground, pooled over the batch."""
    logits = logits.float()
    guess = logits.softmax(1)[:, 1:]
    target = functional.one_hot(truth, logits.shape[1]).movedim(-1, 1)[:, 1:].float()
    overlap, size = ((guess * target).sum((0, 2, 3)), (guess + target).sum((0, 2, 3)))
    dice = (2 * overlap + 1) / (size + 1)
    return functional.cross_entropy(logits, truth) + 1 - torch.mean(dice)


def predict_whole(
    network: Callable[[Tensor], Tensor], image: np.ndarray, multiple: int = 32
) -> np.ndarray:
    """Predict a whole image, padded so that its sides are multiples: (K, y, x) scores."""
    size = image.shape[1:]
    padding = [(0, -length % multiple) for length in size]
    padded = np.pad(image, [(0, 0), *padding], "symmetric").astype(np.float32)
    scores = network(torch.from_numpy(padded)[None])[0, :, : size[0], : size[1]]
    return scores.float().numpy()
