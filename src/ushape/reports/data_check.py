"""The page check.html: findings, histograms, split, and images with the worst cases first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ushape.data.case_stats import CaseStats
from ushape.data.checks import CheckResult
from ushape.data.reading import read_image
from ushape.data.scan import DatasetStats
from ushape.data.splits import PARTS
from ushape.formatting import size_text
from ushape.instances.contours import class_styles, drawing_colors
from ushape.io.annotations import read_annotation
from ushape.io.files import real_path
from ushape.labels import LabelSpace
from ushape.labels.colors import rgb_text
from ushape.reports import BLUE, ORANGE, adapt, as_data, as_svg, write_page
from ushape.transforms.overlay import DISTINCT, Color, overlay

MAX_TILES = 48
"""Number of images on the page."""

MAX_TILES_PER_FINDING = 6
"""Maximum number of images of one finding."""

TILE_SIDE_PX = 224


def write_check_page(path: Path, result: CheckResult) -> None:
    """Write the page atomically."""
    space, colors = result.stats.label_space, _class_colors(result.stats)
    class_names = space.names if space is not None else ("", "mask")
    write_page(
        path,
        "check.html.j2",
        title=f"Check of {real_path(result.stats.folder).name}",
        verdict=result.verdict,
        findings=result.findings,
        histograms=_draw_histograms(result),
        facts=result.facts,
        parts=_parts(result),
        split_text=result.splits.text if result.splits else "",
        legend=[
            {"name": name, "color": rgb_text(color)}
            for name, color in list(zip(class_names, colors, strict=True))[1:]
        ],
        tiles=[_make_tile(stats, names, space, colors) for stats, names in _choose_cases(result)],
    )


def _choose_cases(result: CheckResult) -> list[tuple[CaseStats, list[str]]]:
    """Choose cases with findings, the most severe first, then evenly spread ones without."""
    names: dict[str, list[str]] = {}
    chosen: dict[str, None] = {}
    for finding in result.findings:
        for case in finding.cases:
            names.setdefault(case, []).append(finding.check)
        if finding.severity != "note":
            chosen.update(dict.fromkeys(finding.cases[:MAX_TILES_PER_FINDING]))
    case_stats = {stats.case.id: stats for stats in result.stats.case_stats}
    rest = [case for case in case_stats if case not in chosen]
    wanted = max(MAX_TILES - len(chosen), MAX_TILES // 4)
    chosen.update(dict.fromkeys(rest[:: max(1, len(rest) // wanted)][:wanted]))
    return [(case_stats[case], names.get(case, [])) for case in chosen if case in case_stats]


def _class_colors(stats: DatasetStats) -> tuple[Color, ...]:
    """Return the color of each class in the pictures, the background first."""
    space = stats.label_space
    if space is None:
        return (DISTINCT[0], DISTINCT[0])
    return drawing_colors(class_styles(space.names, space.values, stats.encoding))


def _make_tile(
    stats: CaseStats, names: Sequence[str], space: LabelSpace | None, colors: Sequence[Color]
) -> dict[str, Any]:
    """Return a case with its findings, and either its image or the reason why there is none."""
    case = stats.case
    tile = {"case": case.id, "findings": names, "data": "", "trouble": ""}
    if stats.error is not None or stats.shape != stats.mask_shape:
        trouble = (
            stats.error or f"image {size_text(stats.shape)}, mask {size_text(stats.mask_shape)}"
        )
        return {**tile, "trouble": trouble}
    assert case.mask is not None
    image, mask = read_image(case), read_annotation(case.mask, case.image)
    step = max(1, min(mask.codes.shape[-2:]) // (2 * TILE_SIDE_PX))
    image, codes = image[..., ::step, ::step], mask.codes[..., ::step, ::step]
    if space is None or space.unknown_values(np.unique(codes).tolist(), mask.encoding):
        classes = np.searchsorted(np.unique(codes), codes).clip(max=254).astype(np.uint8)
        colors = (DISTINCT[0],)
    else:
        classes = space.classes_of(codes, mask.encoding)
    picture = overlay(image, classes, colors, tint=0)
    return {**tile, "data": as_data(picture, TILE_SIDE_PX, kind="webp")}


def _parts(result: CheckResult) -> list[dict[str, Any]]:
    """Return name, groups, cases and share of foreground pixels of each subset of the split."""
    if result.splits is None:
        return []
    group_of = result.stats.group_of
    by_id = {stats.case.id: stats for stats in result.stats.readable}
    found = []
    for part in PARTS:
        ids = getattr(result.splits, part)
        pixels = sum(
            (np.array(result.stats.class_pixels(by_id[case])) for case in ids), np.zeros(1)
        )
        found.append(
            {
                "name": part,
                "groups": len({group_of[case] for case in ids}),
                "cases": len(ids),
                "foreground": float(pixels[1:].sum() / max(1, pixels.sum())),
            }
        )
    return found


def _draw_histograms(result: CheckResult) -> str:
    """Draw sizes, intensities and foreground shares as SVG; '' if nothing could be read."""
    case_stats = result.stats.readable
    if not case_stats:
        return ""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    sizes, gray, foreground = figure.subplots(1, 3)
    common = Counter(size_text(stats.shape) for stats in case_stats).most_common(6)
    sizes.barh([size for size, _ in common][::-1], [n for _, n in common][::-1], color=BLUE)
    sizes.set_title("Sizes, pixels")
    sizes.set_xlabel("images")

    values = np.concatenate([stats.pixels.ravel() for stats in case_stats]).astype(np.float64)
    values = values[np.isfinite(values)]
    if len(values):
        low, high = np.percentile(values, (0.1, 99.9))
        gray.hist(values.clip(low, high), bins=64, color=BLUE)
    gray.set_title("Intensities")
    gray.set_yticks([])

    if result.stats.label_space is not None:
        shares = [100 * result.stats.foreground_share(stats) for stats in case_stats]
        foreground.hist(shares, bins=32, color=ORANGE)
    foreground.set_title("Foreground (% of the image)")
    foreground.set_ylabel("images")
    for axes in (sizes, gray, foreground):
        adapt(axes)
    return as_svg(figure)
