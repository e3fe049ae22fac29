"""Published recipes: electron microscopy (ISBI 2012), brain MRI (LGG) and cars (Carvana)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ushape.data.pixel_weights import PixelWeightConfig
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.data.sampling import SamplingConfig
from ushape.data.splits import SplitConfig
from ushape.labels import LabelConfig
from ushape.losses import LossConfig
from ushape.models.config import NetworkConfig
from ushape.planning.recipe import PredictConfig, Recipe, TrainConfig
from ushape.transforms.augment import STRENGTHS, AugmentConfig, IntensityConfig
from ushape.transforms.augment.geometry import GeometryConfig

_PLAIN: dict[str, Any] = {"weight_decay": 0.0, "gradient_clip": 0.0, "ema_decay": 0.0}
"""Settings of training without the techniques that are not part of these publications."""


def unet2015() -> Recipe:
    """Original U-Net for electron microscopy: valid convolutions, border weights, softmax.

    Ronneberger, Fischer, Brox 2015, arXiv 1505.04597. Values that the paper does not give are ours:
    learning rate 1e-3, dropout 0.5, shifts up to 5%, gray values within 10%. The paper averages
    "over 7 rotated versions" without naming the angles; we use seven symmetries, which need no
    interpolation.
    """
    return Recipe(
        name="unet2015",
        labels=LabelConfig(softmax=True),
        preprocessing=PreprocessingConfig(downscale=1.0, intensity="min_max"),
        sampling=SamplingConfig(patch_shape=(572, 572), strategy="uniform"),
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
        pixel_weights=PixelWeightConfig(
            border_w0=10.0, border_sigma_px=5.0, class_weights="inverse"
        ),
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
                rotate90_probability=0.5,
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
        brightness_contrast_probability=1.0,
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
        **_PLAIN,
    )


def lgg_onecycle() -> Recipe:
    """U-Net for brain MRI with strong dropout, SGD and a one-cycle learning rate.

    Slices are sampled by the size of their lesion. The weights of all 20 epochs are saved.
    """
    return Recipe(
        name="lgg-onecycle",
        split=SplitConfig(test_fraction=0.2, validation_fraction=0.15),
        preprocessing=PreprocessingConfig(downscale=1.0, intensity="min_max"),
        sampling=SamplingConfig(strategy="foreground_weighted"),
        augment=_turn_and_scale(),
        network=NetworkConfig(
            widths=(64, 128, 256, 512, 1024), norm="none", dropout=0.6, dropout_position="between"
        ),
        loss=LossConfig(terms={"dice": 0.3, "cross_entropy": 0.7}),
        train=TrainConfig(
            epochs=20,
            batch_size=4,
            optimizer="sgd",
            momentum=0.9,
            learning_rate=0.1,
            schedule="one_cycle",
            **_PLAIN,
            save_every_epoch=True,
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
        preprocessing=PreprocessingConfig(downscale=1.0, intensity="min_max"),
        sampling=SamplingConfig(strategy="uniform"),
        augment=STRENGTHS["none"],
        network=NetworkConfig(widths=(64, 128, 256, 512), norm="none", upsampling="bilinear"),
        loss=LossConfig(terms={"cross_entropy": 1.0, "dice": 1.0}),
        train=TrainConfig(
            epochs=100,
            patience=3,
            batch_size=32,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="warmup",
            warmup_steps=100,
            **_PLAIN,
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
        sampling=SamplingConfig(strategy="group_foreground_weighted"),
        augment=_turn_and_scale(),
        network=NetworkConfig(widths=(32, 64, 128, 256, 512), norm="batch"),
        loss=LossConfig(terms={"dice": 1.0}),
        train=TrainConfig(
            epochs=100,
            batch_size=16,
            optimizer="adam",
            learning_rate=1e-4,
            schedule="constant",
            **_PLAIN,
        ),
        predict=PredictConfig(largest_component=True, tune=False),
    )


def _turn_and_scale() -> AugmentConfig:
    """Rotate up to 15 degrees, scale up to 5%, and flip left and right."""
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
        sampling=SamplingConfig(patch_shape=(572, 572), strategy="uniform"),
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
            upsampling="bilinear_3x3",
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
            **_PLAIN,
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
        sampling=SamplingConfig(patch_shape=(1024, 1024), strategy="uniform"),
        network=NetworkConfig(
            widths=(24, 64, 128, 256, 512, 768, 768),
            decoder_widths=(24, 24, 64, 128, 256, 512),
            norm="batch",
            bottleneck_convolutions=1,
            decoder_convolutions=3,
            upsampling="bilinear",
        ),
        train=replace(
            original.train, batch_size=2, optimizer="rmsprop", momentum=0.0, learning_rate=2e-4
        ),
    )
