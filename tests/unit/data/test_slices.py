from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.data.slices import count_without_neighbors, neighbors_of, stack_slices
from ushape.errors import DataError
from ushape.labels import LabelSpace
from ushape.types import Case

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))


def cases(*names):
    return [Case(id=name, image=Path(f"{name}.png")) for name in names]


def prepare(slices, **changes):
    config = PreprocessingConfig(downscale=1, intensity="image", slices=slices)
    return Preprocessing(channels=1, config=config, space=SPACE, normalization=None, **changes)


def test_stack_slices_repeats_the_edges_and_keeps_channels_together():
    volume = np.arange(2 * 3).reshape(2, 3, 1, 1)  # Channels 0 1 2 and 3 4 5.
    assert stack_slices(volume, 1, 3).ravel().tolist() == [0, 3, 1, 4, 2, 5]
    assert stack_slices(volume, 0, 3).ravel().tolist() == [0, 3, 0, 3, 1, 4]
    assert stack_slices(volume, 2, 5).ravel().tolist() == [0, 3, 1, 4, 2, 5, 2, 5, 2, 5]
    assert stack_slices(volume, 2, 1).ravel().tolist() == [2, 5]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a_2", ["a_1"], ["a_3"]),
        ("a_3", ["a_2", "a_1"], []),  # The next slice, 4, is missing.
        ("a_10", [], []),
        ("b_2", [], []),  # Another stack in the same folder.
    ],
)
def test_neighbors_of_a_stack_with_a_gap(name, before, after):
    group = cases("a_10", "a_1", "a_3", "a_2", "a_5", "b_2")
    (case,) = (one for one in group if one.id == name)
    assert [one.id for one in neighbors_of(case, group, -1, 2)] == before
    assert [one.id for one in neighbors_of(case, group, 1, 2)] == after


def test_neighbors_of_every_second_slice_and_of_names_without_a_number():
    group = cases("s008", "s010", "s012", "s014", "last")
    assert [one.id for one in neighbors_of(group[0], group, 1, 2)] == ["s010", "s012"]
    assert list(neighbors_of(group[-1], group, 1, 2)) == []
    # The first and the last slice, and the image without a number.
    assert count_without_neighbors([group]) == 3
    assert count_without_neighbors([cases("a_1", "a_2", "a_3", "a_5")]) == 3


def test_preprocessing_joins_neighbors_of_equal_size(tmp_path):
    for number, (value, size) in enumerate([(10, 4), (20, 4), (30, 4), (40, 5)]):
        Image.fromarray(np.full((size, 4), value, np.uint8)).save(tmp_path / f"{number}.png")
    group = [Case(id=str(n), image=tmp_path / f"{n}.png") for n in range(4)]
    preprocessing = prepare(3)
    assert (preprocessing.input_channels, preprocessing.sample_channels) == (3, 3)

    def values(sample):
        return sample.image[:, 0, 0].tolist()

    assert values(preprocessing.load(group[1], group)) == [10, 20, 30]
    assert values(preprocessing.load(group[0], group)) == [10, 10, 20]
    assert values(preprocessing.load(group[2], group)) == [20, 30, 30]  # Another size follows.
    assert values(preprocessing.load(group[1])) == [20, 20, 20]
    sample = preprocessing.load(group[1], group)
    assert sample.normalization.mean == (20, 20, 20)  # That of the slice in the middle.
    assert preprocessing.without_neighbors(sample.image)[:, 0, 0].tolist() == [20]
    assert values(prepare(None).load(group[1], group)) == [20]
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(DataError):
        preprocessing.load(group[1], group)


def test_samples_of_volumes_by_slice_have_the_channels_of_the_file():
    by_slice = prepare(3, by_slice=True)
    assert (by_slice.sample_channels, by_slice.input_channels) == (1, 3)
    assert not by_slice.needs_neighbors
