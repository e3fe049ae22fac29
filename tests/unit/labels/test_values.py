import numpy as np
import pytest
import torch

from codes import raises_code
from ushape.errors import ConfigError, DataError
from ushape.labels import IGNORE, LabelConfig, find_label_space


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
