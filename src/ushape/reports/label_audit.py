"""Label audit: the masks that are most likely to contain annotation errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ushape.evaluation.case_images import MAX_SUSPECT_PICTURES, CasePicture, label_error_score
from ushape.evaluation.scores import CaseScore, by_case, case_dice
from ushape.formatting import number_text, to_csv
from ushape.io.files import write_bytes
from ushape.reports import write_page
from ushape.reports.gallery import draw_still

TABLE, PAGE = "audit.csv", "audit.html"


def write_audit(
    folder: Path, title: str, scores: Sequence[CaseScore], pictures: Sequence[CasePicture]
) -> None:
    """Write audit.csv with all cases by decreasing label error score, and audit.html.

    Args:
        folder: Existing folder for both files.
        title: Title of the page.
        scores: Scores from networks that were not trained on the case. Networks rarely contradict
            the masks that they were trained on.
        pictures: Pictures of some of the cases.
    """
    cases = by_case(scores)
    error_scores = {case: label_error_score(own) for case, own in cases.items()}
    ranked = sorted(cases, key=lambda case: (-error_scores[case], case))
    rows = [
        {
            "case": case,
            "group": cases[case][0].group,
            "label_error_score": round(error_scores[case], 6),
            "dice": case_dice(cases[case]),
        }
        for case in ranked
    ]
    write_bytes(folder / TABLE, to_csv(["case", "group", "label_error_score", "dice"], rows))
    shown = {picture.case: picture for picture in pictures}
    suspects = [case for case in ranked if error_scores[case] > 0]
    write_page(
        folder / PAGE,
        "audit.html.j2",
        title=title,
        cases=len(cases),
        suspects=len(suspects),
        tiles=[
            {
                "case": case,
                "error_score": number_text(error_scores[case]),
                "dice": number_text(case_dice(cases[case])),
                "data": draw_still(shown[case]),
            }
            for case in [case for case in suspects if case in shown][:MAX_SUSPECT_PICTURES]
        ],
    )
