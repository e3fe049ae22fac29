import csv
import re

from reports import make_case
from ushape.evaluation.scores import CaseScore
from ushape.metrics.overlap import Counts
from ushape.reports.label_audit import PAGE, TABLE, write_audit


def score(case, error_score, name="cell"):
    counts = Counts(overlap=5, truth=10, predicted=10, pixels=100)
    return CaseScore(
        case=case,
        group="g",
        class_name=name,
        counts=counts,
        pixel_error=0,
        metrics={"label_error_score": error_score},
    )


def test_write_audit_ranks_by_label_error_score(tmp_path):
    scores = [score("a", 0.1), score("b", 0.7), score("c", 0.0), score("a", 0.9, "nucleus")]
    pictures = [make_case(name).picture for name in "abc"]
    write_audit(tmp_path, "x & <y>", scores, pictures)
    with (tmp_path / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], float(row["label_error_score"])) for row in rows] == [
        ("a", 0.9),
        ("b", 0.7),
        ("c", 0.0),
    ]
    page = (tmp_path / PAGE).read_text()
    assert re.findall(r"<figcaption>(\w): label error score ([\d.]+), Dice ([\d.]+)", page) == [
        ("a", "0.900", "0.500"),
        ("b", "0.700", "0.500"),
    ]
    assert "x &amp; &lt;y&gt;" in page
    assert "2 of 3 cases" in page


def test_write_audit_without_label_errors(tmp_path):
    write_audit(tmp_path, "x", [score("a", 0.0)], [make_case("a").picture])
    assert "No annotation errors were found" in (tmp_path / PAGE).read_text()
