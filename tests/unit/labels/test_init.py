import numpy as np
import pytest
import torch

from codes import raises_code
from ushape.errors import ConfigError, DataError
from ushape.labels import IGNORE, LabelConfig, LabelSpace, find_label_space


def test_find_label_space_of_black_and_white_masks():
    space, rule = find_label_space({0: 930, 255: 70}, LabelConfig())

    assert space.values == (0, 255)
    assert space.names == ("background", "foreground")
    assert space.is_binary
    assert space.channels == 1
    assert "lowest value, 0, is background" in rule


def test_find_label_space_never_ignores_white_by_default():
    mask = np.array([0, 255, 7])
    space, _ = find_label_space({0: 1, 7: 1, 255: 1}, LabelConfig())
    assert space.classes_of(mask).tolist() == [0, 2, 1]

    said, _ = find_label_space({0: 1, 7: 1, 255: 1}, LabelConfig(ignore=255))
    assert said.classes_of(mask).tolist() == [0, IGNORE, 1]
    assert said.values == (0, 7)


def test_find_label_space_keeps_the_order_of_named_values():
    space, _ = find_label_space({0: 5, 255: 5}, LabelConfig(values=(255, 0)))
    assert space.classes_of(np.array([[255, 0]])).tolist() == [[0, 1]]
    assert space.values_of(np.array([[0, 1]])).tolist() == [[255, 0]]


def test_values_of_undoes_classes_of_for_any_values():
    rng = np.random.default_rng(0)
    values = tuple(int(v) for v in rng.choice(70_000, size=12, replace=False))
    space = LabelSpace(values=values, names=tuple(map(str, values)))
    mask = rng.choice(values, size=(9, 11))
    assert (space.values_of(space.classes_of(mask)) == mask).all()


def test_classes_of_reports_unknown_values():
    space = LabelSpace(values=(0, 255), names=("background", "foreground"))
    with raises_code(DataError, "unknown_mask_value") as caught:
        space.classes_of(np.array([0, 3, 3, 255]))
    assert "labels.values" in caught.value.hint


def test_find_label_space_says_how_to_state_many_classes():
    counts = dict.fromkeys(range(150), 1)
    with raises_code(DataError, "too_many_mask_values") as caught:
        find_label_space(counts, LabelConfig())
    assert "all 150 values are classes" in caught.value.hint
    space, _ = find_label_space(counts, LabelConfig(values=tuple(counts)))
    assert space.channels == 150


def test_find_label_space_with_a_threshold_has_two_classes():
    counts = dict.fromkeys(range(256), 1)
    with raises_code(DataError, "too_many_mask_values") as caught:
        find_label_space(counts, LabelConfig())
    assert "classes.csv" not in caught.value.hint  # A mask file cannot have so many classes.

    space, _ = find_label_space(counts, LabelConfig(threshold=128))
    assert space.classes_of(np.array([0, 127, 128, 255])).tolist() == [0, 0, 1, 1]
    assert space.values == (0, 255)


def test_find_label_space_refuses_a_single_value():
    with raises_code(DataError, "single_mask_value"):
        find_label_space({0: 100}, LabelConfig())


def test_label_config_refuses_contradictory_settings():
    with raises_code(ConfigError, "settings_conflict"):
        LabelConfig(threshold=1, values=(0, 1))
    with raises_code(ConfigError, "too_few_classes"):
        LabelConfig(values=(3,))
    with raises_code(ConfigError, "settings_conflict"):
        LabelConfig(values=(0, 255), ignore=255)


def test_label_space_encodes_by_hand():
    classes = torch.tensor([[0, 1], [2, IGNORE]])
    three = LabelSpace(values=(0, 1, 2), names=("a", "b", "c"))
    target, weight = three.encode(classes)
    assert target.tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]
    assert weight.tolist() == [[[1, 1], [1, 0]]]

    two = LabelSpace(values=(0, 1), names=("a", "b"))
    target, _ = two.encode(torch.tensor([[0, 1]]))
    assert target.tolist() == [[[0, 1]]]
    both = LabelSpace(values=(0, 1), names=("a", "b"), softmax=True)
    target, _ = both.encode(torch.tensor([[0, 1]]))
    assert target.tolist() == [[[1, 0]], [[0, 1]]]
    assert both.probabilities(torch.zeros(1, 2, 1, 1)).tolist() == [[[[0.5]], [[0.5]]]]


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_label_space_decode_inverts_encode(classes):
    space = LabelSpace(values=tuple(range(classes)), names=tuple("abcde"[:classes]))
    truth = torch.from_numpy(np.random.default_rng(1).integers(classes, size=(6, 7)))
    target, _ = space.encode(truth)
    assert (space.decode(target.numpy()) == truth.numpy()).all()


NESTED = LabelConfig(regions={"whole": (1, 2, 4), "core": (2, 4), "active": (4,)})


def test_find_label_space_of_regions_by_hand():
    space, _ = find_label_space({0: 9, 1: 3, 2: 2, 4: 1}, NESTED)
    assert space.channels == 3
    assert space.channel_names == ("whole", "core", "active")
    classes = space.classes_of(np.array([[0, 1, 2, 4]]))
    target, weight = space.encode(torch.from_numpy(classes))
    assert target[:, 0].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert (weight == 1).all()
    assert (space.values_of(space.decode(target.numpy())) == [[0, 1, 2, 4]]).all()
    assert space.probabilities(torch.zeros(1, 3, 1, 1)).flatten().tolist() == [0.5] * 3
    assert [region.of(classes).sum() for region in space.scored] == [3, 2, 1]


@pytest.mark.parametrize(
    ("regions", "code"),
    [
        ({"core": (2,), "whole": (1, 2, 4)}, "regions_ambiguous"),
        ({"whole": (1, 2, 4), "active": (4,)}, "regions_ambiguous"),
        ({"whole": (1, 2), "again": (1, 2)}, "regions_ambiguous"),
        ({"whole": (1, 7)}, "unknown_class"),
    ],
)
def test_find_label_space_refuses_ambiguous_regions(regions, code):
    with raises_code(ConfigError, code):
        find_label_space({0: 9, 1: 3, 2: 2, 4: 1}, LabelConfig(regions=regions))


def test_label_config_refuses_regions_with_a_threshold():
    with raises_code(ConfigError, "settings_conflict"):
        LabelConfig(regions={"a": (1,)}, threshold=1)


@pytest.mark.parametrize("count", [2, 3])
def test_label_space_with_a_distance_has_one_more_output(count):
    space = LabelSpace(values=tuple(range(count)), names=tuple("abc"[:count]), has_distance=True)
    assert space.outputs == space.channels + 1
    logits = torch.randn(2, space.outputs, 4, 4)
    outputs = space.probabilities(logits)
    own = space.probabilities(logits[:, : space.channels])
    torch.testing.assert_close(outputs[:, :-1], own)
    torch.testing.assert_close(outputs[:, -1], logits[:, -1].sigmoid())
    probabilities, distance = space.split_outputs(outputs[0].numpy())
    assert np.array_equal(distance, outputs[0, -1])
    assert np.array_equal(space.decode(outputs[0].numpy()), space.decode(probabilities))
    assert space.split_outputs(probabilities)[1] is None


def test_label_config_refuses_the_distance_of_overlapping_regions():
    for values in ({"objects": "distance", "regions": {"a": (1,)}}, {"reach_px": 0.5}):
        with pytest.raises(ConfigError) as error:
            LabelConfig(**values)
        assert error.value.code in ("settings_conflict", "value_out_of_range")
