import numpy as np
import pytest
from PIL import Image

from ushape.data.cache import join_errors, load_cases, memory_of
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.errors import DataError
from ushape.labels import LabelSpace
from ushape.types import Case, CaseFacts

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))


@pytest.fixture
def facts(tmp_path):
    """Two cases of 8 x 8 pixels."""
    found = []
    for name in ("a", "b"):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / f"{name}.png")
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / f"{name}_mask.png")
        case = Case(id=name, image=tmp_path / f"{name}.png", mask=tmp_path / f"{name}_mask.png")
        found.append(CaseFacts(case, (56, 8)))
    return found


def load(facts, memory_bytes, on_read=None, patch_source="auto", **changes):
    config = PreprocessingConfig(**{"downscale": 1, "intensity": "image", **changes})
    preprocessing = Preprocessing(channels=1, config=config, space=SPACE, normalization=None)
    return load_cases(
        facts,
        preprocessing,
        dims=2,
        memory_bytes=memory_bytes,
        threads=1,
        on_read=on_read,
        patch_source=patch_source,
    )


@pytest.mark.parametrize(
    ("changes", "needed"), [({}, 2 * 64 * 3), ({"downscale": 2}, 96), ({"shape": (4, 4)}, 96)]
)
def test_load_cases_keeps_samples_that_fill_less_than_a_quarter_of_the_memory(
    facts, changes, needed
):
    # Of each pixel, two bytes of one channel and one byte of the mask are kept.
    assert load(facts, 4 * needed + 1, **changes).keep
    assert not load(facts, 4 * needed, **changes).keep


def test_memory_of_resized_volumes_counts_all_slices(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((6, 8, 8), np.uint8))
    fact = CaseFacts(Case(id="a", image=tmp_path / "a.npy"), (6 * 64, 0))
    config = PreprocessingConfig(downscale=1, shape=(4, 4), slices=3)
    preprocessing = Preprocessing(
        channels=1, config=config, space=SPACE, normalization=None, by_slice=True
    )
    assert memory_of([fact], preprocessing, 3) == 6 * 16 * 3


def test_load_cases_obeys_where_patches_are_cut_from(facts):
    assert load(facts, 0, patch_source="memory").keep
    assert not load(facts, 1e9, patch_source="files").keep


def test_sample_store_returns_equal_samples_from_memory_and_from_files(facts):
    kept, read = load(facts, 1e9), load(facts, 0)
    assert [sample.case.id for sample in kept] == [sample.case.id for sample in read] == ["a", "b"]
    np.testing.assert_array_equal(kept[1].image, read[1].image)
    assert kept[0] is kept[0]
    facts[0].case.image.unlink()
    assert kept[0].image.shape == (1, 8, 8)
    with pytest.raises(DataError):
        read[0]


def test_load_cases_passes_on_each_kept_image_as_stored(facts):
    seen = {}
    load(facts, 1e9, lambda case, *arrays: seen.update({case.id: arrays}), downscale=2)
    assert sorted(seen) == ["a", "b"]
    image, classes = seen["a"]
    np.testing.assert_array_equal(image[0], np.arange(64).reshape(8, 8))
    np.testing.assert_array_equal(classes, np.eye(8))
    load(facts, 0, lambda case, *arrays: pytest.fail("nothing is kept"))


def test_load_cases_names_every_case_that_fails(facts):
    for fact in facts:
        fact.case.image.unlink()
    with pytest.raises(DataError) as caught:
        load(facts, 1e9)
    assert caught.value.code == "unusable_cases"
    assert "a.png" in caught.value.message
    assert "b.png" in caught.value.message


def test_join_errors_lists_the_first_ones_with_one_hint():
    errors = [DataError(f"{n} is damaged.", code="damaged_file", hint="Copy it.") for n in "abc"]
    assert join_errors(errors[:1]) is errors[0]
    joined = join_errors(errors, most=2)
    assert (joined.code, joined.hint) == ("unusable_cases", "Copy it.")
    assert len(joined.message.splitlines()) == 1 + 2 + 1
