import numpy as np
import pytest

from ushape.errors import RunError
from ushape.inference.decision_rule import ClassRule, DecisionRule
from ushape.inference.tuning import (
    Tuning,
    ValidatedCase,
    choose_tuning,
    load_tuning,
    save_tuning,
)
from ushape.instances.label import ObjectConfig
from ushape.io.files import write_sealed_json
from ushape.labels import LabelSpace
from ushape.planning.run import Run
from ushape.transforms.morphology import Cleaning

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


def test_load_tuning_reads_what_an_earlier_version_saved(tmp_path):
    run = Run(tmp_path)
    cleaning = {"largest_only": False, "smallest_px": 5, "largest_hole_px": "all"}
    objects = {"split": "learned", "rise_learned": 0.4, "smallest_px": 7, "largest_hole_px": 2}
    values = {
        "rule": {"classes": {"cell": {"threshold": 0.3, "cleaning": cleaning}}},
        "objects": objects,
        "objects_planned": {"split": "learned", "rise_learned": 0.2},
    }
    write_sealed_json(run.tuning_path, values)
    found = load_tuning(run)
    expected = Cleaning(min_size_px=5, max_hole_size_px="all")
    assert found.rule.of("cell") == ClassRule(threshold=0.3, cleaning=expected)
    assert found.objects == ObjectConfig(
        separation="learned_distance", h_distance=0.4, min_size_px=7, max_hole_size_px=2
    )
    assert found.objects_planned == ObjectConfig(separation="learned_distance")
