import numpy as np

from ushape.evaluation.breakdowns import break_down
from ushape.evaluation.scores import score_case
from ushape.labels import LabelSpace
from ushape.types import Case

SPACE = LabelSpace(values=(0, 1), names=("background", "cell"))


def test_break_down_uses_columns_with_few_values():
    ones = np.ones((2, 2), np.uint8)
    cases = [
        Case(id=f"{n}", image="x", metadata={"scanner": "AB"[n % 2], "age": str(n), "site": "same"})
        for n in range(20)
    ]
    scores = [
        score
        for n in range(20)
        for score in score_case(f"{n}", f"g{n}", ones if n % 2 else 0 * ones, ones, SPACE)
    ]
    (table,) = break_down(scores, cases, noun="patients", seed=0)  # age has 20 values, site 1.
    assert table.title == "By scanner"
    assert table.rows[0] == ["A", "cell", "10", "10", "0.000", "0.000 to 0.000", "10"]
    assert table.rows[1] == ["B", "cell", "10", "10", "1.000", "1.000 to 1.000", "0"]
