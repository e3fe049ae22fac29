"""Settings of a standalone folder: what its programs need to know about trained runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ushape.config import resolved
from ushape.errors import PlanError
from ushape.inference.ensemble import EnsembleMember
from ushape.inference.network import Network
from ushape.inference.predictor import Predictor
from ushape.planning.plan import Plan

WRITTEN_TYPES = {
    ".png": ("uint8", "bool", "uint16"),
    ".bmp": ("uint8", "bool"),
    ".gif": ("uint8", "bool"),
}
"""Types of the values of masks that Pillow writes, by suffix; TIFF files have any type."""

COMPARED_SIZES = 1024
"""Number of sizes for which the rule of the legal sizes is compared with the network."""


def refuse_unsupported(predictor: Predictor) -> None:
    """Check that a standalone program can repeat the predictions of a model.

    Raises:
        PlanError: if it cannot.
    """
    for member in predictor.members:
        if reason := _obstacle(member.plan, predictor):
            raise PlanError(
                f"This model cannot be exported to a standalone folder: {reason}.",
                code="export_refused",
                hint="Use `ushape predict`, or train with other settings.",
            )


def _obstacle(plan: Plan, predictor: Predictor) -> str:
    """Return why a standalone program cannot repeat the predictions of a plan; '' if it can."""
    preprocessing, encoding = plan.preprocessing, plan.encoding
    if plan.image_dims == 3:
        return "it predicts volumes, but the program reads only 2D images"
    if preprocessing.channels not in (1, 3):
        return f"its images have {preprocessing.channels} channels, but the program reads 1 or 3"
    if preprocessing.needs_group:
        return "it preprocesses images with the statistics of their group"
    if preprocessing.needs_neighbors:
        return "it reads images together with their neighbors in a stack"
    if preprocessing.config.common_spacing_mm is not None:
        return "it resamples images to a common spacing, but Pillow does not read spacings"
    if encoding.suffix in (".tif", ".tiff"):
        pass
    elif encoding.suffix not in WRITTEN_TYPES:
        return f"its masks are {encoding.suffix} files"
    elif (
        encoding.kind in ("values", "one_hot")
        and encoding.dtype not in WRITTEN_TYPES[encoding.suffix]
    ):
        return f"its masks are {encoding.suffix} files of type {encoding.dtype}"
    if predictor.separates and predictor.objects.max_hole_size_px:
        return "predict.objects.max_hole_size_px fills the holes of objects"
    return ""


def settings_of(predictor: Predictor, files: Sequence[str]) -> dict[str, Any]:
    """Return the settings of the programs, as values of JSON.

    Args:
        files: Name of the ONNX file of each network.

    Raises:
        PlanError: if the sizes that a network accepts follow no simple rule.
    """
    plan, space = predictor.plan, predictor.plan.preprocessing.space
    rules = zip(space.scored, predictor.tuning.rule.for_space(space), strict=True)
    encoding = plan.encoding
    return {
        "networks": [
            _network_settings(member, file)
            for member, file in zip(predictor.members, files, strict=True)
        ],
        "channels": plan.preprocessing.channels,
        "is_exclusive": space.is_exclusive,
        "rules": [
            {
                "classes": list(region.classes),
                "threshold": rule.threshold,
                "cleaning": asdict(rule.cleaning),
            }
            for region, rule in rules
        ],
        "values": list(space.values),
        "names": list(space.names),
        "separation": _separation_settings(predictor) if predictor.separates else None,
        "encoding": {
            "kind": encoding.kind,
            "dtype": encoding.dtype,
            "palette": encoding.palette,
            "white_is_zero": encoding.white_is_zero,
            "orientation": encoding.orientation,
            "suffix": encoding.suffix,
        },
    }


def _separation_settings(predictor: Predictor) -> dict[str, Any]:
    how = predictor.objects
    joins = predictor.joins_objects
    return {
        "h": how.h_distance,
        "corners_connect": how.corners_connect,
        "min_size_px": how.min_size_px,
        "draws_lines": not joins,
        "writes_numbers": joins,
    }


def _network_settings(member: EnsembleMember, file: str) -> dict[str, Any]:
    preprocessing, tiles = member.plan.preprocessing, member.settings
    config = preprocessing.config
    normalization = preprocessing.normalization
    return {
        "file": file,
        "grid": {
            "square": config.square,
            "shape": config.shape,
            "factors": config.downscale_factors(2),
        },
        "intensity": {
            "kind": config.intensity,
            "percentiles": config.percentiles,
            "normalization": None if normalization is None else asdict(normalization),
        },
        "tiling": {
            "margin": member.network.margin,
            "legal_sizes": [_legal_sizes(member.network, axis) for axis in range(2)],
            "shape": tiles.shape,
            "overlap_fraction": resolved(tiles.overlap_fraction),
            "stretch": tiles.stretch,
            "blend": tiles.blend,
            "symmetries": [asdict(symmetry) for symmetry in tiles.symmetries],
        },
    }


def _legal_sizes(network: Network, axis: int) -> dict[str, int]:
    """Return the smallest legal size along an axis, and the step to the next ones."""
    smallest = network.legal_shape((1, 1))[axis]
    step = network.legal_shape((smallest + 1,) * 2)[axis] - smallest
    for size in range(1, smallest + COMPARED_SIZES):
        expected = smallest + step * max(0, -(-(size - smallest) // step))
        if network.legal_shape((size, size))[axis] != expected:
            raise PlanError(
                "This model cannot be exported to a standalone folder: the image sizes that its "
                "network accepts do not follow a simple rule.",
                code="export_refused",
                hint="Use `ushape predict`.",
            )
    return {"smallest": int(smallest), "step": int(step)}
