import numpy as np
import pytest
from PIL import Image

from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.errors import DataError
from ushape.labels import LabelSpace
from ushape.normalization import Normalization
from ushape.types import Case

SPACE = LabelSpace(values=(0, 255), names=("background", "foreground"))
rng = np.random.default_rng(0)


def prepare(downscale=1, normalization=None, channels=1):
    config = PreprocessingConfig(
        downscale=downscale, intensity="data" if normalization else "image"
    )
    return Preprocessing(channels=channels, config=config, space=SPACE, normalization=normalization)


@pytest.fixture
def case(tmp_path):
    Image.fromarray(rng.integers(256, size=(31, 42), dtype=np.uint8)).save(tmp_path / "i.png")
    mask = np.zeros((31, 42), np.uint8)
    mask[8:24, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    return Case(id="a", image=tmp_path / "i.png", mask=tmp_path / "m.png")


@pytest.mark.parametrize("downscale", [1, 2, 3])
def test_restore_returns_to_the_grid_of_the_file(case, downscale):
    preprocessing = prepare(downscale)
    sample = preprocessing.load(case)
    assert sample.geometry.file_shape == (31, 42)
    assert sample.image.shape[1:] == sample.classes.shape == sample.geometry.working_shape
    back = preprocessing.restore(sample.classes[None].astype(np.float32), sample.geometry)
    assert back.shape == (1, 31, 42)
    truth = prepare().load(case).classes
    guess = SPACE.decode(back)
    assert 2 * (truth & guess).sum() / (truth.sum() + guess.sum()) > 0.9


def test_preprocessing_is_the_same_in_training_and_prediction(case):
    normalization = Normalization.measure(rng.random((1, 99)) * 255)
    annotated = prepare(2, normalization).load(case)
    plain = prepare(2, normalization).load(Case(id="a", image=case.image))
    assert plain.classes is None
    assert (plain.image == annotated.image).all()


def test_preprocessing_normalizes_each_image_by_its_own_statistics(case):
    sample = prepare(normalization=None).load(case)
    scaled = sample.normalization.apply(sample.image)
    assert scaled.mean() == pytest.approx(0, abs=0.05)
    assert scaled.std() == pytest.approx(1, abs=0.05)


def test_preprocessing_names_the_file_with_other_channels_or_values(case):
    with pytest.raises(DataError) as error:
        prepare(channels=2).load(case)
    assert error.value.code == "channel_count_mismatch"
    Image.fromarray(np.full((31, 42), 7, np.uint8)).save(case.mask)
    with pytest.raises(DataError, match=r"m\.png: .* not classes: 7 in 1302 pixels"):
        prepare().load(case)
