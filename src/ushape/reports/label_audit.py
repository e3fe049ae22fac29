"""The label audit: which masks are most likely to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ushape.evaluation.case_images import MAX_DOUBTED, CasePicture, doubt_about
from ushape.evaluation.case_metrics import number_text
from ushape.evaluation.scores import CaseScore, by_case, mean_dice
from ushape.formatting import to_csv
from ushape.io.files import write_bytes
from ushape.reports import write_page
from ushape.reports.gallery import draw_still

TABLE, PAGE = "audit.csv", "audit.html"


def write_audit(
    folder: Path, title: str, scores: Sequence[CaseScore], pictures: Sequence[CasePicture]
) -> None:
    """audit.csv, all cases with the most doubted mask first, and audit.html with their pictures.

    Args:
        scores: By networks that never saw the case in training: what a network was taught, it
            does not doubt.
    """
    cases = by_case(scores)
    ranked = sorted(cases, key=lambda case: (-doubt_about(cases[case]), case))
    rows = [
        {
            "case": case,
            "group": cases[case][0].group,
            "mask_doubt": round(doubt_about(cases[case]), 6),
            "dice": mean_dice(cases[case]),
        }
        for case in ranked
    ]
    write_bytes(folder / TABLE, to_csv(["case", "group", "mask_doubt", "dice"], rows))
    shown = {picture.case: picture for picture in pictures}
    doubted = [case for case in ranked if doubt_about(cases[case]) > 0 and case in shown]
    write_page(
        folder / PAGE,
        "audit.html.j2",
        title=title,
        cases=len(cases),
        doubted=sum(doubt_about(own) > 0 for own in cases.values()),
        tiles=[
            {
                "case": case,
                "doubt": number_text(doubt_about(cases[case])),
                "dice": number_text(mean_dice(cases[case])),
                "data": draw_still(shown[case]),
            }
            for case in doubted[:MAX_DOUBTED]
        ],
    )
