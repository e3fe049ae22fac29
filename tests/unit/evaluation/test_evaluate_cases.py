import numpy as np
import pytest

from ushape.evaluation import evaluate_cases
from ushape.evaluation.evaluate_cases import SectionScores
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics.topology import score_section
from ushape.types import Prediction

CELLS = LabelSpace(values=(0, 255), names=("membrane", "cell"))


def grid(side=40, step=10):
    """Cells of step - 1 pixels with membranes of one pixel."""
    cells = np.ones((side, side), np.uint8)
    cells[::step], cells[:, ::step] = 0, 0
    return cells


def predict(cells, sure=0.9):
    shares = np.where(cells > 0, sure, 1 - sure).astype(np.float32)[None]
    return Prediction(probabilities=shares, classes=cells)


def test_section_scores_use_the_best_threshold():
    truth, guess = grid(), grid()
    guess[15, 10] = 1  # Two cells run together.
    shares = np.where(guess > 0, 0.9, 0.05).astype(np.float32)
    shares[15, 10] = 0.6
    collected = SectionScores(CELLS)
    collected.add(Prediction(probabilities=shares[None], classes=guess), truth)
    found = collected.scores()
    assert found["rand"].at_rule == score_section(guess > 0, truth > 0).rand < 1
    assert found["rand"].value == 1
    assert found["rand"].threshold == pytest.approx(0.6)  # The first above which 0.6 is membrane.
    assert found["warping_error"].value == 0
    assert set(found) == {"rand", "information", "variation", "warping_error"}


def test_section_scores_require_images_filled_by_cells(monkeypatch):
    lonely = np.zeros((40, 40), np.uint8)
    lonely[3:9, 3:9] = 1
    for truth in (lonely, np.ones((40, 40), np.uint8)):
        collected = SectionScores(CELLS)
        collected.add(predict(truth), truth)
        assert collected.scores() == {}
    ignored = grid()
    ignored[0, 0] = IGNORE
    volume = np.stack([grid(), grid()])
    collected = SectionScores(CELLS)
    collected.add(predict(grid()), ignored)
    collected.add(predict(volume), volume)
    assert collected.scores() == {}
    monkeypatch.setattr(evaluate_cases, "MAX_TOPOLOGY_PX", 2 * 1600)
    collected, broken = SectionScores(CELLS), np.ones((40, 40), np.uint8)
    for guess in (grid(), grid(), broken):  # The third finds no room.
        collected.add(predict(guess), grid())
    assert collected.scores()["rand"].at_rule == 1
