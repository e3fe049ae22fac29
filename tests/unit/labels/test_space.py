from dataclasses import replace

import numpy as np
import pytest
import torch

from codes import raises_code
from probabilities import SPACES
from ushape.errors import DataError
from ushape.labels import IGNORE, LabelSpace


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


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("has_distance", [False, True])
def test_probabilities_of_arrays_equal_those_of_tensors_but_for_rounding(name, has_distance):
    space = replace(SPACES[name], has_distance=has_distance and name != "regions")
    logits = torch.linspace(-200, 200, 2 * space.outputs * 35).reshape(2, space.outputs, 5, 7)
    found = space.probabilities_of(logits.numpy())
    assert found.dtype == np.float32
    assert np.abs(found - space.probabilities(logits).numpy()).max() < 3e-7
