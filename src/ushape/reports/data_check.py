"""check.html: findings, histograms, the split, and a contact sheet with the worst cases first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ushape.data.case_stats import CaseStats
from ushape.data.checks.run import Checked
from ushape.data.preprocessing import read_image
from ushape.data.splits import PARTS
from ushape.formatting import size_text
from ushape.io.annotations import read_annotation
from ushape.reports import BLUE, ORANGE, adapt, as_data, as_svg, write_page
from ushape.transforms.overlay import outline

TILES = 48
"""Pictures on the contact sheet."""

TILES_OF_ONE = 6
"""Of one finding, so that it does not fill the sheet."""

TILE_PX = 224


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A case on the contact sheet."""

    case: str
    findings: Sequence[str]
    data: str = ""
    """A data URI; '' where the case cannot be shown."""

    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class PartOfSplit:
    name: str
    groups: int
    cases: int
    foreground: float
    """Share of all pixels, 0 to 1."""


def write_check_page(path: Path, checked: Checked) -> None:
    """Writes the page, whole or not at all."""
    write_page(
        path,
        "check.html.j2",
        title=f"Check of {checked.folder.resolve().name}",
        verdict=checked.verdict,
        findings=checked.findings,
        histograms=_draw_histograms(checked),
        facts=checked.facts,
        parts=_parts(checked),
        split_text=checked.splits.text if checked.splits else "",
        tiles=[_make_tile(exam, names) for exam, names in _choose_cases(checked)],
    )


def _choose_cases(checked: Checked) -> list[tuple[CaseStats, list[str]]]:
    """Cases with findings, the worst kinds first, then evenly spread ones without."""
    names: dict[str, list[str]] = {}
    chosen: dict[str, None] = {}
    for finding in checked.findings:
        for case in finding.cases:
            names.setdefault(case, []).append(finding.check)
        if finding.severity != "note":
            chosen.update(dict.fromkeys(finding.cases[:TILES_OF_ONE]))
    exams = {exam.case.id: exam for exam in checked.evidence.exams}
    rest = [case for case in exams if case not in chosen]
    wanted = max(TILES - len(chosen), TILES // 4)
    chosen.update(dict.fromkeys(rest[:: max(1, len(rest) // wanted)][:wanted]))
    return [(exams[case], names.get(case, [])) for case in chosen if case in exams]


def _make_tile(exam: CaseStats, names: Sequence[str]) -> Tile:
    case = exam.case
    if exam.error is not None or exam.shape != exam.mask_shape:
        trouble = exam.error or f"image {size_text(exam.shape)}, mask {size_text(exam.mask_shape)}"
        return Tile(case=case.id, findings=names, trouble=trouble)
    assert case.mask is not None
    image, codes = read_image(case), read_annotation(case.mask).codes
    step = max(1, min(codes.shape[-2:]) // (2 * TILE_PX))
    image, codes = image[..., ::step, ::step], codes[..., ::step, ::step]
    classes = np.searchsorted(np.unique(codes), codes).clip(max=254).astype(np.uint8)
    picture = outline(image, classes, np.zeros_like(classes))
    return Tile(case=case.id, findings=names, data=as_data(picture, TILE_PX, kind="webp"))


def _parts(checked: Checked) -> list[PartOfSplit]:
    if checked.splits is None:
        return []
    assert checked.grouping is not None
    group_of = {case.id: case.group for case in checked.grouping.cases}
    exams = {exam.case.id: exam for exam in checked.evidence.readable}
    found = []
    for part in PARTS:
        ids = getattr(checked.splits, part)
        pixels = sum((checked.evidence.class_pixels(exams[case]) for case in ids), np.zeros(1))
        found.append(
            PartOfSplit(
                name=part,
                groups=len({group_of[case] for case in ids}),
                cases=len(ids),
                foreground=float(pixels[1:].sum() / max(1, pixels.sum())),
            )
        )
    return found


def _draw_histograms(checked: Checked) -> str:
    """Sizes, intensities and foreground shares, as SVG; '' where nothing could be read."""
    exams = checked.evidence.readable
    if not exams:
        return ""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    sizes, gray, foreground = figure.subplots(1, 3)
    common = Counter(size_text(exam.shape) for exam in exams).most_common(6)
    sizes.barh([size for size, _ in common][::-1], [n for _, n in common][::-1], color=BLUE)
    sizes.set_title("Sizes, pixels")
    sizes.set_xlabel("images")

    values = np.concatenate([exam.pixels.ravel() for exam in exams]).astype(np.float64)
    values = values[np.isfinite(values)]
    if len(values):
        low, high = np.percentile(values, (0.1, 99.9))
        gray.hist(values.clip(low, high), bins=64, color=BLUE)
    gray.set_title("Intensities")
    gray.set_yticks([])

    if checked.evidence.space is not None:
        pixels = [checked.evidence.class_pixels(exam) for exam in exams]
        shares = [100 * own[1:].sum() / max(1, own.sum()) for own in pixels]
        foreground.hist(shares, bins=32, color=ORANGE)
    foreground.set_title("Foreground, % of an image")
    foreground.set_ylabel("images")
    for axes in (sizes, gray, foreground):
        adapt(axes)
    return as_svg(figure)
