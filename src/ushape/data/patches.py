"""Training patches, each determined by (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ushape.data.pixel_weights import PixelWeights
from ushape.data.sampling import CaseDraw, PatchKey, draw_center
from ushape.labels import LabelSpace
from ushape.transforms.augment import AugmentConfig, change_intensity
from ushape.transforms.augment.geometry import cut, draw_warp
from ushape.types import Sample


class Patch(TypedDict):
    """One training patch; a batch has an additional first axis."""

    image: Tensor
    """(C, *P) float32, normalized intensities."""
    target: Tensor
    """(K, *P') float32, 0 or 1; P' is smaller than P for a network without padding."""
    weight: Tensor
    """(1, *P') float32, weight of each pixel in the loss; 0 for ignored pixels."""


class PatchDataset(Dataset[Patch]):
    """Draws, cuts, augments and encodes patches.

    Args:
        samples: Training cases.
        space: Label space, for target and weight.
        draw: Draws the case of each patch.
        weights: Computes the weights of the pixels.
        augment: Random changes of the patches.
        patch_shape: P, in working pixels.
        margin: Number of pixels that the network loses on each side.
        seed: Random seed of the run.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        space: LabelSpace,
        draw: CaseDraw,
        weights: PixelWeights,
        augment: AugmentConfig,
        *,
        patch_shape: tuple[int, ...],
        margin: int = 0,
        seed: int = 0,
    ):
        self.samples, self.space, self.draw = samples, space, draw
        self.weights, self.augment = weights, augment
        self.patch_shape, self.margin, self.seed = patch_shape, margin, seed
        # The output of the network lies within the image; its margin may reach beyond.
        self.inner_shape = tuple(size - 2 * margin for size in patch_shape)

    def __getitem__(self, key: PatchKey) -> Patch:
        rng = np.random.default_rng([self.seed, *key])
        pick = self.draw.draw(rng)
        sample = self.samples[pick.case_index]
        assert sample.classes is not None, "a training case has a mask"

        center = draw_center(sample.classes, pick.class_index, self.inner_shape, rng)
        warp = draw_warp(self.augment.geometry, self.patch_shape, rng)
        image, classes = cut(sample.image, sample.classes, center, self.patch_shape, warp)
        assert classes is not None
        image = sample.normalization.apply(image)
        image = change_intensity(image, self.augment.intensity, rng)

        inner = tuple(slice(self.margin, size - self.margin) for size in self.patch_shape)
        target, _ = self.space.encode(torch.from_numpy(classes[inner]))
        # Weights of the whole patch: objects in the margin may have borders within the output.
        weight = torch.from_numpy(self.weights.of(classes)[None, *inner])
        return Patch(image=torch.from_numpy(image), target=target, weight=weight)
