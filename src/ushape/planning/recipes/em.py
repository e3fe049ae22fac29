"""Recipes for neuronal structures in electron microscopy (ISBI 2012)."""

from __future__ import annotations

from dataclasses import replace

from ushape.data.pixel_weights import PixelWeightConfig
from ushape.data.preprocessing import PreprocessingConfig
from ushape.data.sampling import SamplingConfig
from ushape.data.splits import SplitConfig
from ushape.labels import LabelConfig
from ushape.losses import LossConfig
from ushape.models.config import NetworkConfig
from ushape.planning.recipe import PredictConfig, Recipe, TrainConfig
from ushape.transforms.augment import AugmentConfig, IntensityConfig
from ushape.transforms.augment.geometry import GeometryConfig


def unet2015() -> Recipe:
    """Original U-Net for electron microscopy: valid convolutions, border weights, softmax.

    Ronneberger, Fischer, Brox 2015, arXiv 1505.04597. Values that the paper does not give are ours:
    learning rate 1e-3, dropout 0.5, shifts up to 5 %, gray values within 10 %. The paper averages
    "over 7 rotated versions" without naming the angles; we use seven symmetries, which need no
    interpolation.
    """
    return Recipe(
        name="unet2015",
        labels=LabelConfig(softmax=True),
        preprocessing=PreprocessingConfig(downscale=1, intensity="min_max"),
        sampling=SamplingConfig(patch_shape=(572, 572), draw="uniform"),
        augment=AugmentConfig(
            geometry=GeometryConfig(
                rotation_probability=1.0,
                scale_probability=0.0,
                shift_fraction=0.05,
                elastic_probability=1.0,
                elastic_px=10.0,
                elastic_grid=3,
                interpolation="cubic",
            ),
            intensity=_tone(0.1, 0.1),
        ),
        network=NetworkConfig(
            widths=(64, 128, 256, 512, 1024), padding="valid", norm="none", dropout=0.5
        ),
        pixel_weights=PixelWeightConfig(border_w0=10.0, border_sigma_px=5.0, balance=True),
        loss=LossConfig(terms={"cross_entropy": 1.0}),
        train=_momentum_sgd(learning_rate=1e-3),
        predict=PredictConfig(tta="rotated_7", tune=False),
    )


def isbi2012() -> Recipe:
    """U-Net for electron microscopy with a sigmoid output, more augmentation and early stopping.

    27 sections are used for training and validation, 3 for testing. The learning rate comes from a
    range test; `--set train.learning_rate=auto` runs one before the training.
    """
    paper = unet2015()
    return replace(
        paper,
        name="isbi2012",
        labels=LabelConfig(),
        split=SplitConfig(test_fraction=0.1, validation_fraction=0.1),
        augment=AugmentConfig(
            geometry=GeometryConfig(
                flip_axes=(0, 1),
                transpose_probability=0.5,
                quarter_turn_probability=0.5,
                rotation_probability=0.5,
                rotation_degrees=45.0,
                scale_probability=0.5,
                scale=0.1,
                shift_fraction=0.0625,
                elastic_probability=0.5,
                elastic_px=35.0,
                elastic_sigma_px=5.0,
            ),
            intensity=replace(
                _tone(0.15, 0.15),
                noise=0.05,
                noise_probability=0.5,
                speckle=0.1,
                speckle_probability=0.5,
                one_of=(("noise", "speckle"),),
            ),
        ),
        network=replace(paper.network, dropout=0.0),
        train=replace(
            _momentum_sgd(learning_rate=1e-2), accumulate_grad_batches=4, epochs=1000, patience=100
        ),
        predict=PredictConfig(tta="none", tune=False),
    )


def _tone(brightness: float, contrast: float) -> IntensityConfig:
    """Change only brightness and contrast, in every patch."""
    return IntensityConfig(
        brightness=brightness,
        contrast=contrast,
        tone_probability=1.0,
        gamma_probability=0.0,
        noise_probability=0.0,
        blur_probability=0.0,
    )


def _momentum_sgd(learning_rate: float) -> TrainConfig:
    """Use one image per step, and a momentum that averages over many of them, as in the paper."""
    return TrainConfig(
        batch_size=1,
        optimizer="sgd",
        momentum=0.99,
        learning_rate=learning_rate,
        schedule="constant",
        weight_decay=0.0,
        gradient_clip=0.0,
        ema_decay=0.0,
    )
