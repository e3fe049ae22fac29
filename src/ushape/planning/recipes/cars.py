"""Recipes for car masking (Carvana)."""

from __future__ import annotations

from dataclasses import replace

from ushape.data.preprocessing import PreprocessingConfig
from ushape.data.sampling import SamplingConfig
from ushape.data.splits import SplitConfig
from ushape.losses import LossConfig
from ushape.models.config import NetworkConfig
from ushape.planning.recipe import PredictConfig, Recipe, TrainConfig
from ushape.transforms.augment import STRENGTHS, AugmentConfig
from ushape.transforms.augment.geometry import GeometryConfig


def carvana_original() -> Recipe:
    """U-Net for cars with valid convolutions, 572 -> 388 pixels, batch norm, bilinear upsampling.

    The published code resizes image and mask to 572 and 388 pixels, so that it compares the mask of
    the whole image with the center of the image. This recipe resizes the image to 388 pixels and
    adds mirrored borders up to 572.
    """
    return Recipe(
        name="carvana-original",
        split=SplitConfig(test_fraction=0.2, validation_fraction=0.2),
        preprocessing=PreprocessingConfig(shape=(388, 388), intensity="min_max"),
        sampling=SamplingConfig(patch_shape=(572, 572), draw="uniform"),
        augment=AugmentConfig(
            geometry=GeometryConfig(
                flip_axes=(-1,),
                rotation_probability=0.5,
                rotation_degrees=10.0,
                scale_probability=0.5,
                scale=0.1,
                shift_fraction=0.0625,
                elastic_probability=0.0,
            ),
            intensity=STRENGTHS["none"].intensity,
        ),
        network=NetworkConfig(
            widths=(64, 128, 256, 512, 1024),
            norm="batch",
            bias="always",
            padding="valid",
            up="bilinear_3x3",
            decoder_convolutions=1,
        ),
        loss=LossConfig(terms={"cross_entropy": 1.0, "dice_per_image": 1.0}),
        train=TrainConfig(
            epochs=50,
            batch_size=3,
            optimizer="sgd",
            momentum=0.99,
            learning_rate=0.01,
            schedule="constant",
            weight_decay=0.0,
            gradient_clip=0.0,
            ema_decay=0.0,
        ),
        predict=PredictConfig(tune=False),
    )


def carvana_1024() -> Recipe:
    """U-Net for cars at 1024 x 1024 pixels with padding, seven levels and RMSprop."""
    original = carvana_original()
    return replace(
        original,
        name="carvana-1024",
        preprocessing=PreprocessingConfig(shape=(1024, 1024), intensity="min_max"),
        sampling=SamplingConfig(patch_shape=(1024, 1024), draw="uniform"),
        network=NetworkConfig(
            widths=(24, 64, 128, 256, 512, 768, 768),
            decoder_widths=(24, 24, 64, 128, 256, 512),
            norm="batch",
            center_convolutions=1,
            decoder_convolutions=3,
            up="bilinear",
        ),
        train=replace(
            original.train, batch_size=2, optimizer="rmsprop", momentum=0.0, learning_rate=2e-4
        ),
    )
