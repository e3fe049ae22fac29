from pathlib import Path

import pytest

from ushape.api.evaluate import evaluate, refuse_other_classes
from ushape.data.class_names import StatedClasses
from ushape.errors import ConfigError, DataError, RunError
from ushape.labels import LabelSpace

SPACE = LabelSpace(values=(0, 1), names=("background", "cell"))


def stated(names, values):
    return StatedClasses(source=Path("classes.txt"), names=names, values=values)


@pytest.mark.parametrize(
    "classes",
    [
        None,
        stated(("background", "cell"), (0, 1)),
        stated(("background", "other"), None),
        stated(("background", "other"), (0, 5)),
    ],
)
def test_refuse_other_classes_accepts_equal_or_unknown_names(classes):
    refuse_other_classes(SPACE, classes)


def test_refuse_other_classes_names_the_value():
    with pytest.raises(DataError) as error:
        refuse_other_classes(SPACE, stated(("background", "nucleus"), (0, 1)))
    assert error.value.code == "conflicting_class_names"


def test_evaluate_refuses_masks_without_data_and_cross_validations(tmp_path):
    with pytest.raises(ConfigError) as error:
        evaluate(tmp_path, masks=tmp_path)
    assert error.value.code == "missing_argument"
    (tmp_path / "folds.json").write_text("{}")
    with pytest.raises(RunError) as error:
        evaluate(tmp_path)
    assert error.value.code == "not_a_single_run"
