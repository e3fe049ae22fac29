"""Prepared cases -> training patches, each drawn from (seed, epoch, index) alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ushape.data.pixel_weights import PixelWeights
from ushape.data.sampling import CaseDraw, Key, draw_center
from ushape.labels import LabelSpace
from ushape.transforms.augment import AugmentConfig, change_intensity
from ushape.transforms.augment.geometry import cut, draw_warp
from ushape.types import Sample


class Patch(TypedDict):
    """One training patch; a batch has one more axis in front."""

    image: Tensor
    """(C, *P) float32, intensities scaled."""
    target: Tensor
    """(K, *P') float32, 0 or 1; P' is smaller than P for a network without padding."""
    weight: Tensor
    """(1, *P') float32, how much each pixel counts; 0 where ignored."""


class PatchDataset(Dataset[Patch]):
    """Draws, cuts, augments and encodes patches.

    Args:
        samples: The training cases.
        space: For target and weight.
        draw: Chooses the case of each patch.
        weights: Of a patch's pixels.
        patch_shape: P, in working pixels.
        margin: Pixels that the network loses on each side.
        seed: The run's seed.
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
        # What the network answers for lies within the image; its margin may reach beyond.
        self.inner_shape = tuple(size - 2 * margin for size in patch_shape)

    def __getitem__(self, key: Key) -> Patch:
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
        # Of the whole patch: objects beyond the network's margin have borders within it.
        weight = torch.from_numpy(self.weights.of(classes)[None, *inner])
        return Patch(image=torch.from_numpy(image), target=target, weight=weight)
