"""Recipes for FLAIR abnormalities in brain MRI (LGG, Buda 2019)."""

from __future__ import annotations

from ushape.data.preprocessing import PreprocessingConfig
from ushape.data.sampling import SamplingConfig
from ushape.data.splits import SplitConfig
from ushape.losses import LossConfig
from ushape.models.config import NetworkConfig
from ushape.planning.recipe import PredictConfig, Recipe, TrainConfig
from ushape.transforms.augment import STRENGTHS, AugmentConfig
from ushape.transforms.augment.geometry import GeometryConfig


def lgg_onecycle() -> Recipe:
    """U-Net for brain MRI with strong dropout, SGD and a one-cycle learning rate.

    Slices are sampled by the size of their lesion. The weights of all 20 epochs are saved.
    """
    return Recipe(
        name="lgg-onecycle",
        split=SplitConfig(test_fraction=0.2, validation_fraction=0.15),
        preprocessing=PreprocessingConfig(downscale=1, intensity="min_max"),
        sampling=SamplingConfig(draw="lesion"),
        augment=_turn_and_scale(),
        network=NetworkConfig(
            widths=(64, 128, 256, 512, 1024), norm="none", dropout=0.6, dropout_place="between"
        ),
        loss=LossConfig(terms={"dice": 0.3, "cross_entropy": 0.7}),
        train=TrainConfig(
            epochs=20,
            batch_size=4,
            optimizer="sgd",
            momentum=0.9,
            learning_rate=0.1,
            schedule="one_cycle",
            weight_decay=0.0,
            gradient_clip=0.0,
            ema_decay=0.0,
            keep_epochs=True,
        ),
        predict=PredictConfig(tune=False),
    )


def lgg_bce_dice() -> Recipe:
    """U-Net for brain MRI with four levels, bilinear upsampling, cross-entropy + Dice loss.

    The published code splits by slice, so that patients occur in training and test; this recipe
    splits by patient. The learning rate is not published; 1e-3 is the default of Adam.
    """
    return Recipe(
        name="lgg-bce-dice",
        preprocessing=PreprocessingConfig(downscale=1, intensity="min_max"),
        sampling=SamplingConfig(draw="uniform"),
        augment=STRENGTHS["none"],
        network=NetworkConfig(widths=(64, 128, 256, 512), norm="none", up="bilinear"),
        loss=LossConfig(terms={"cross_entropy": 1.0, "dice": 1.0}),
        train=TrainConfig(
            epochs=100,
            patience=3,
            batch_size=32,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="warmup",
            warmup_steps=100,
            weight_decay=0.0,
            gradient_clip=0.0,
            ema_decay=0.0,
        ),
        predict=PredictConfig(tune=False),
    )


def lgg_buda() -> Recipe:
    """U-Net for brain MRI, normalized per volume: crop, contrast, z-score; batch norm, Dice, Adam.

    Buda, Saha, Mazurowski 2019, 10.1016/j.compbiomed.2019.05.002. Percentiles are computed per
    channel, while the published code computes them over all channels. To follow the published
    protocol, use 22 folds and the Dice per patient in 3D.
    """
    return Recipe(
        name="lgg-buda",
        preprocessing=PreprocessingConfig(
            crop=True, square=True, shape=(256, 256), intensity="group", percentiles=(10.0, 99.0)
        ),
        sampling=SamplingConfig(draw="patient_lesion"),
        augment=_turn_and_scale(),
        network=NetworkConfig(widths=(32, 64, 128, 256, 512), norm="batch"),
        loss=LossConfig(terms={"dice": 1.0}),
        train=TrainConfig(
            epochs=100,
            batch_size=16,
            optimizer="adam",
            learning_rate=1e-4,
            schedule="constant",
            weight_decay=0.0,
            gradient_clip=0.0,
            ema_decay=0.0,
        ),
        predict=PredictConfig(largest_component=True, tune=False),
    )


def _turn_and_scale() -> AugmentConfig:
    """Rotate up to 15 degrees, scale up to 5 %, and flip left and right."""
    return AugmentConfig(
        geometry=GeometryConfig(
            flip_axes=(-1,),
            rotation_probability=1.0,
            rotation_degrees=15.0,
            scale_probability=1.0,
            scale=0.05,
            elastic_probability=0.0,
        ),
        intensity=STRENGTHS["none"].intensity,
    )
