from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ushape
from ushape.api.evaluate import evaluate, match_classes, refuse_other_classes
from ushape.data.classes.names import StatedClasses
from ushape.data.reading import read_classes
from ushape.data.scan import scan_dataset
from ushape.errors import ConfigError, DataError, RunError
from ushape.labels import LabelConfig, LabelSpace

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


def scanned(folder, draw):
    """Scan a data set of masks that `draw` returns for a number."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(4):
        for name, array in (("images", rng.integers(0, 255, (24, 24))), ("masks", draw(number))):
            Image.fromarray(array.astype(np.uint8)).save(folder / name / f"n{number}.png")
    return scan_dataset(folder, None, LabelConfig(), workers=1)


def square(number, value=1):
    mask = np.zeros((24, 24), np.uint8)
    mask[4 + number : 16, 4:20] = value
    return mask


@pytest.mark.parametrize(
    "space",
    [
        SPACE,
        LabelSpace(values=(0, 255), names=("background", "foreground"), threshold=128),
        LabelSpace(values=(0, 0xFF0000), names=("background", "cell"), colors=(0, 0xFF0000)),
    ],
)
@pytest.mark.parametrize("value", [1, 7, 100, 255])
def test_match_classes_reads_two_classes_in_any_encoding(tmp_path, space, value):
    stats = scanned(tmp_path, lambda number: square(number, value))
    matched, _ = match_classes(space, stats)
    for stats_of_case, number in zip(stats.case_stats, range(4), strict=True):
        classes = read_classes(stats_of_case.case, matched)
        np.testing.assert_array_equal(classes, square(number))
    assert matched.names == space.names


def test_match_classes_keeps_the_values_of_the_run(tmp_path):
    stats = scanned(tmp_path, square)
    assert match_classes(SPACE, stats) == (SPACE, "")


def test_match_classes_refuses_other_classes(tmp_path):
    stats = scanned(tmp_path, lambda number: square(number) + square(3, number % 2))
    with pytest.raises(DataError) as error:
        match_classes(SPACE, stats)
    assert error.value.code == "unknown_mask_value"
    assert "--" not in error.value.hint  # `ushape evaluate` has no option for it.


def test_evaluate_refuses_masks_without_data_and_cross_validations(tmp_path):
    with pytest.raises(ConfigError) as error:
        evaluate(tmp_path, masks=tmp_path)
    assert error.value.code == "missing_argument"
    (tmp_path / "folds.json").write_text("{}")
    with pytest.raises(RunError) as error:
        evaluate(tmp_path)
    assert error.value.code == "not_a_single_run"


def write_stacks(folder, names):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for place, name in enumerate(names):
        mask = square(place % 4)
        image = (rng.normal(50, 5, mask.shape) + 60 * mask).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


def test_missing_neighbors_are_counted_in_evaluate_and_needed_by_a_plan(tmp_path, capsys):
    stacks = write_stacks(tmp_path / "stacks", [f"{one}_{n}" for one in "abcd" for n in range(3)])
    single = write_stacks(tmp_path / "single", [f"{one}_0" for one in "abcd"])
    settings = ["network.widths=[4,8]", "train.steps_per_epoch=2", "preprocessing.slices=3"]
    options = {"groups": "^.", "settings": settings, "epochs": 1, "quiet": True}
    ushape.train(stacks, output=tmp_path / "run", **options)
    evaluate(tmp_path / "run")
    said = capsys.readouterr()
    assert "2 images of 3 lack a direct neighbor" in said.out + said.err
    with pytest.raises(ConfigError) as error:
        ushape.plan(single, **options)
    assert error.value.code == "no_neighbors"
    plan = tmp_path / "run" / "plan.json"
    with pytest.raises(ConfigError) as error:
        ushape.train(single, plan=plan, output=tmp_path / "other", quiet=True)
    assert error.value.code == "no_neighbors"
