import csv
import json
from pathlib import Path

import pytest

from ushape.evaluation.learning_curve import make_curve
from ushape.evaluation.scores import CaseScore
from ushape.metrics.overlap import Counts
from ushape.reports.learning_curve import write_curve


def score(group, dice, name="cell", truth=1000):
    """As much predicted as there is, so that Dice is the share that overlaps."""
    counts = Counts(overlap=round(dice * truth), truth=truth, predicted=truth, pixels=10_000)
    return CaseScore(
        case=f"{group}/0", group=group, class_name=name, counts=counts, pixel_error=0.1
    )


def curve_of(*points, tested=12, noun="patients", spread=0.02):
    scores = [
        [score(f"p{n:02d}", dice + spread * (n - (tested - 1) / 2) / tested) for n in range(tested)]
        for dice in points
    ]
    groups = (3, 6, 12, 24)[: len(points)]
    folders = [Path(f"groups-{count}") for count in groups]
    cases = [10 * count for count in groups]
    return make_curve(groups, cases, folders, scores, noun=noun, seed=0)


@pytest.mark.parametrize("tested", [1, 12])
def test_write_curve_writes_the_same_values_to_all_files(tmp_path, tested):
    curve = curve_of(0.6, 0.76, 0.856, 0.9136, tested=tested)
    page = write_curve(tmp_path, curve, "title", ["how <it> was made"])
    stored = json.loads((tmp_path / "learning_curve.json").read_text())
    assert stored["verdict"] == curve.verdict
    assert stored["gains"][0]["dice"] == curve.gains[0].dice
    assert stored["points"][2]["folder"] == "groups-12"
    assert stored["points"][2]["cases"] == 120
    rows = list(csv.DictReader((tmp_path / "learning_curve.csv").read_text().splitlines()))
    assert [row["groups"] for row in rows] == ["3", "6", "12", "24"]
    assert [float(row["mean_dice"]) for row in rows] == pytest.approx(
        [point.dice for point in curve.points], abs=1e-6
    )
    assert bool(rows[0]["low"]) == (tested > 1)
    html = page.read_text()
    assert "<svg" in html
    assert 'href="groups-6/report.html"' in html
    assert "how &lt;it&gt; was made" in html
    assert f"+{curve.gains[1].dice:.3f}" in html
