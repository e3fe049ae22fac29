from dataclasses import replace

import pytest

from ushape.errors import ConfigError
from ushape.labels import LabelConfig
from ushape.planning.data_settings import apply_data_settings
from ushape.planning.recipe import Recipe


def write(folder, text):
    (folder / "ushape.yaml").write_text(text)
    return folder


def test_data_without_settings_leave_the_recipe(tmp_path):
    assert apply_data_settings(Recipe(), tmp_path) == (Recipe(), "")


@pytest.mark.parametrize(
    "text",
    [
        "groups: none\nlabels:\n  values: [0, 7]\n  ignore: 9\n",
        "groups: none\nlabels.values: [0, 7]\nlabels.ignore: 9\n",
    ],
)
def test_settings_beside_the_data_complete_the_recipe(tmp_path, text):
    found, note = apply_data_settings(Recipe(), write(tmp_path, text))
    assert (found.groups, found.labels) == ("none", LabelConfig(values=(0, 7), ignore=9))
    assert "groups=none" in note
    assert "labels.values=[0, 7]" in note
    table = tmp_path / "cases.csv"
    table.touch()
    assert apply_data_settings(Recipe(), table)[0] == found


def test_settings_of_the_recipe_take_precedence(tmp_path):
    own = Recipe(groups="[a-z]", labels=LabelConfig(ignore=3))
    found, _ = apply_data_settings(
        own, write(tmp_path, "groups: none\nlabels.ignore: 9\nseed: 5\n")
    )
    assert (found.groups, found.labels.ignore, found.seed) == ("[a-z]", 3, 5)


def test_settings_are_applied_once(tmp_path):
    found, _ = apply_data_settings(Recipe(), write(tmp_path, "groups: none\n"))
    changed = replace(found, groups=None)
    assert apply_data_settings(changed, tmp_path) == (changed, "")
    again, note = apply_data_settings(changed, write(tmp_path, "groups: none\nseed: 1\n"))
    assert (again.groups, again.seed, bool(note)) == ("none", 1, True)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("group: none", "unknown_key"),
        ("labels.value: [0]", "unknown_key"),
        ("seed: x", "invalid_value"),
        ("- a", "invalid_yaml"),
        ("a: [", "invalid_yaml"),
        ("seed: 1\nseed: 2", "invalid_yaml"),
        ("labels: {ignore: 1, ignore: 2}", "invalid_yaml"),
        ("train.epochs: -3", "value_out_of_range"),
    ],
)
def test_settings_that_are_invalid_are_refused(tmp_path, text, code):
    with pytest.raises(ConfigError) as error:
        apply_data_settings(Recipe(), write(tmp_path, text))
    assert error.value.code == code
    assert "ushape.yaml" in error.value.message
