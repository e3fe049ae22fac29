import numpy as np
import pytest

from ushape.errors import RunError
from ushape.inference.decision_rule import DecisionRule
from ushape.inference.tuning import (
    Tuning,
    ValidatedCase,
    choose_tuning,
    load_tuning,
    save_tuning,
)
from ushape.labels import LabelSpace
from ushape.planning.run import Run

SPACE = LabelSpace(values=(0, 255), names=("background", "cell"))


def cautious(number):
    """A case whose probabilities are below 0.5 within the annotation."""
    rng = np.random.default_rng(number)
    truth = np.zeros((40, 40), np.uint8)
    truth[10 : 20 + number, 10:30] = 1
    shares = np.where(truth, 0.4, 0.1) + rng.normal(0, 0.01, truth.shape)
    return ValidatedCase(f"dish {number}", np.rint(255 * shares[None]).astype(np.uint8), truth)


def test_choose_tuning_lowers_the_threshold_for_low_probabilities():
    cases = [cautious(number) for number in range(5)]
    tuned = choose_tuning(cases, SPACE, rule=True)
    assert 0.1 < tuned.rule.of("cell").threshold < 0.4
    assert tuned.report
    assert max(tuned.calibrations[0].dice) == 1
    left = choose_tuning(cases, SPACE, rule=False)
    assert left.rule == DecisionRule()
    assert max(left.calibrations[0].dice) == 0


def test_tuning_chooses_the_average_only_if_the_plan_leaves_it_open():
    tuned = Tuning(tta="mirrored")
    assert tuned.average_for("validated") == "mirrored"
    assert tuned.average_for("none") == "none"
    assert Tuning().average_for("validated") == "none"
    assert Tuning().average_for("all_8") == "all_8"


def test_load_tuning_restores_what_was_saved(tmp_path):
    run = Run(tmp_path)
    assert load_tuning(run) == Tuning()
    tuned = choose_tuning([cautious(number) for number in range(4)], SPACE, rule=True)
    save_tuning(run, tuned)
    assert load_tuning(run) == tuned
    run.tuning_path.write_text("{]")
    with pytest.raises(RunError, match=r"decision\.json") as error:
        load_tuning(run)
    assert error.value.code == "damaged_run_file"
