from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ushape.api.load import Model, Result
from ushape.errors import DataError, RunError
from ushape.io import read_mask
from ushape.types import MaskEncoding


def model_of(channels, dims):
    """Model without networks, which only knows the form of its images."""
    plan = SimpleNamespace(image_dims=dims, preprocessing=SimpleNamespace(channels=channels))
    return Model(SimpleNamespace(plan=plan, preprocess_array=lambda array: array))


@pytest.mark.parametrize(
    ("channels", "dims", "shape"),
    [(1, 2, (5, 6)), (3, 2, (3, 5, 6)), (3, 2, (5, 6, 3)), (1, 3, (4, 5, 6)), (1, 2, (5, 6, 1))],
)
def test_model_accepts_channels_first_last_or_omitted(channels, dims, shape):
    found = model_of(channels, dims)._channels_first(np.zeros(shape, np.uint8))
    assert found.shape[0] == channels
    assert found.ndim == dims + 1


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ("names", "not_an_image"),
        (np.array([["a"]]), "not_an_image"),
        (np.zeros((0, 4)), "not_an_image"),
        (np.zeros((4, 5, 6)), "array_shape_mismatch"),
    ],
)
def test_model_refuses_other_arrays(image, code):
    image = [image] if isinstance(image, str) else image
    with pytest.raises(DataError) as error:
        model_of(3, 2).predict(image)
    assert error.value.code == code


@pytest.mark.parametrize("reads_groups", [True, False])
def test_model_reads_a_file_with_the_others_of_its_folder_if_it_needs_them(tmp_path, reads_groups):
    for name in ("s_011", "s_012", "s_013"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"{name}.png")
    read = {}

    def preprocess(case, companions):
        read.update(case=case, companions=companions)
        raise DataError("Enough is known.", code="enough", hint="")

    preprocessing = SimpleNamespace(channels=1, needs_group=False)
    plan = SimpleNamespace(image_dims=2, preprocessing=preprocessing)
    predictor = SimpleNamespace(
        plan=plan,
        members=[SimpleNamespace(plan=plan)],
        reads_groups=reads_groups,
        preprocess=preprocess,
    )
    with pytest.raises(DataError, match="Enough"):
        Model(predictor).predict(str(tmp_path / "s_012.png"))
    assert read["case"].image == tmp_path / "s_012.png"
    names = [case.id for case in read["companions"]]
    assert names == (["s_011", "s_012", "s_013"] if reads_groups else [])
    assert read["case"] in read["companions"] or not reads_groups
    with pytest.raises(DataError, match="Enough"):  # A missing file is named by its reader.
        Model(predictor).predict(tmp_path / "missing.png")
    assert read["companions"] == []


def test_result_save_replaces_nothing_unless_asked(tmp_path):
    mask = np.array([[0, 255], [255, 0]])
    result = Result(
        mask=mask,
        classes=(mask > 0).astype(np.uint8),
        probabilities=np.zeros((1, 2, 2), np.float32),
        expected_dice=None,
        image=tmp_path / "image.png",
        encoding=MaskEncoding(),
    )
    target = Path(tmp_path / "mask.png")
    result.save(target)
    assert read_mask(target).codes.tolist() == mask.tolist()
    for path, code in ((target, "output_exists"), (tmp_path / "image.png", "output_is_input")):
        with pytest.raises(RunError) as error:
            result.save(path)
        assert error.value.code == code
    result.save(target, overwrite=True)


def test_result_repr_is_one_line_without_pixels():
    zeros = np.zeros((4, 5), np.uint8)
    result = Result(zeros, zeros, zeros[None], 0.5, Path("a.png"), MaskEncoding())
    assert repr(result) == "Result(image=a.png, shape=(4, 5), expected_dice=0.5)"
