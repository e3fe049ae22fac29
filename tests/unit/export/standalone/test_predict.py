import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from standalone import TEMPLATE, import_program
from ushape.labels import LabelSpace

predict = import_program("predict")


class Session:
    """Computes logits from pixels, as an ONNX file would."""

    def __init__(self, function):
        self.function = function

    def run(self, outputs, values):
        return [self.function(values["image"])]


def brightness(image):
    """Logits above 0 where the first channel is above the mean."""
    return 40 * image[:, :1]


def model_of(function=brightness, **changes):
    rule = predict.ClassRule((1,), 0.5, predict.Cleaning(False, 0, 0))
    member = predict.Member(
        session=Session(function),
        grid=predict.Grid(square=False, shape=None, factors=(1.0, 1.0)),
        intensity=predict.Intensity("image", (0.5, 99.5)),
        tiling=predict.Tiling(
            margin=0,
            legal_sizes=(predict.LegalSizes(4, 4),) * 2,
            shape=(32, 32),
            overlap_fraction=0.25,
            stretch=1.25,
            blend="gaussian",
            symmetries=(predict.Symmetry((), False),),
        ),
    )
    settings = {
        "members": (member,) * changes.pop("copies", 1),
        "channels": 1,
        "is_exclusive": False,
        "rules": (rule,),
        "values": (0, 255),
        "separation": None,
        "encoding": predict.MaskEncoding("values", "uint8", None, False, "displayed", ".png"),
    }
    return predict.Model(**settings | changes)


@pytest.fixture
def images(tmp_path):
    """Two images of a bright square, of odd sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, shape in (("a", (41, 47)), ("b", (9, 5))):
        pixels = np.full(shape, 20, np.uint8)
        pixels[2:6, 1:4] = 220
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls the program with a model."""

    def called(*arguments, model=None):
        monkeypatch.setattr(predict, "load_model", lambda: model or model_of())
        return predict.main([*map(str, arguments), "-o", str(tmp_path / "masks")])

    return called


@pytest.mark.parametrize("copies", [1, 3])
def test_program_writes_a_mask_for_each_image(images, run, tmp_path, copies):
    assert run(images, model=model_of(copies=copies)) == 0
    mask = np.asarray(Image.open(tmp_path / "masks/a.png"))
    assert mask.shape == (41, 47)
    assert (mask[2:6, 1:4] == 255).all()
    assert (mask == 255).sum() == 12
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a.png", "b.png"]


def test_subfolders_are_kept_and_hidden_files_left_out(images, run, tmp_path):
    (images / "deep").mkdir()
    (images / "a.png").rename(images / "deep/a.png")
    (images / ".b.png").write_bytes(b"")
    assert run(images) == 0
    assert (tmp_path / "masks/deep/a.png").exists()


def test_channel_number_of_nnunet_is_left_out(images, run, tmp_path):
    for path in list(images.iterdir()):
        path.rename(path.with_name(f"{path.stem}_0000.png"))
    assert run(images) == 0
    assert (tmp_path / "masks/a.png").exists()
    (images / "b_0000.png").rename(images / "b.png")
    assert run(images / "a_0000.png", images / "b.png", "--overwrite") == 0
    assert (tmp_path / "masks/a_0000.png").exists()


def test_existing_mask_is_replaced_only_if_wanted(images, run, tmp_path, capsys):
    mask = tmp_path / "masks/a.png"
    mask.parent.mkdir()
    mask.write_bytes(b"mine")
    assert run(images) == predict.FAILED
    assert mask.read_bytes() == b"mine"
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "masks/b.png").exists()
    assert run(images, "--overwrite") == 0
    assert mask.read_bytes() != b"mine"


def test_image_that_cannot_be_read_leaves_the_others(images, run, tmp_path, capsys):
    (images / "a.png").write_bytes(b"damaged")
    assert run(images) == predict.FAILED
    assert (tmp_path / "masks/b.png").exists()
    assert "a.png" in capsys.readouterr().err


def test_mask_never_replaces_an_image(images, run, tmp_path):
    before = (images / "a.png").read_bytes()
    (tmp_path / "masks").symlink_to(images)
    assert run(images, "--overwrite") == predict.FAILED
    assert (images / "a.png").read_bytes() == before


def test_images_of_one_name_are_not_mixed(images, run, tmp_path, capsys):
    Image.open(images / "b.png").save(images / "a.bmp")
    assert run(images) == predict.FAILED
    assert "same name" in capsys.readouterr().err


def test_gray_image_is_repeated_for_colors_only(images, run):
    assert run(images, model=model_of(channels=3)) == 0
    assert run(images, "--overwrite", model=model_of(channels=2)) == predict.FAILED


def test_masks_of_an_earlier_call_are_not_images(images, run, tmp_path):
    assert run(tmp_path) == 0
    assert run(tmp_path, "--overwrite") == 0
    masks = [path for path in (tmp_path / "masks").rglob("*") if path.is_file()]
    assert len(masks) == 2


def test_missing_packages_are_named(tmp_path):
    command = [sys.executable, "-S", "-E", TEMPLATE / "predict.py", "x.png", "-o", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == predict.FAILED
    assert "pip install" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_incomplete_folder_is_reported(images, tmp_path, capsys, monkeypatch):
    def fail():
        raise FileNotFoundError("model.json")

    monkeypatch.setattr(predict, "load_model", fail)
    assert predict.main([str(images), "-o", str(tmp_path / "masks")]) == predict.FAILED
    assert "model.json" in capsys.readouterr().err


def test_outputs_that_are_no_folder_for_masks_are_reported(images, capsys, run):
    run(images)  # Replaces the networks.
    capsys.readouterr()
    file = images / "a.png"
    for output, words in ((file, "is a file"), (images, "is the folder of the images")):
        assert predict.main([str(images), "-o", str(output)]) == predict.FAILED
        assert words in capsys.readouterr().err


def test_masks_and_hidden_folders_are_no_images(images, monkeypatch):
    for name in ("masks", ".cache"):
        (images / name).mkdir()
        (images / name / "a.png").write_bytes((images / "a.png").read_bytes())
    monkeypatch.chdir(images)
    for output in (Path("masks"), images / "masks"):
        found = predict.find_images([Path()], output)
        assert [str(path) for path, _ in found] == ["a.png", "b.png"]


def test_folder_without_images_is_reported(tmp_path, run):
    assert run(tmp_path) == predict.FAILED


def test_nan_of_the_network_is_reported(images, run):
    nothing = model_of(lambda image: np.full_like(image, np.nan))
    assert run(images, model=nothing) == predict.FAILED


def test_objects_are_numbered_beside_the_mask(images, run, tmp_path):
    separation = predict.Separation(0.2, False, 0, False, True)
    model = model_of(lambda image: np.concatenate([40 * image] * 2, 1), separation=separation)
    assert run(images, model=model) == 0
    numbers = np.asarray(Image.open(tmp_path / "masks/a_instances.tif"))
    assert numbers.max() == 1
    assert (numbers > 0).sum() == 12


def test_classes_of_a_softmax_are_the_largest_odds(images, run, tmp_path):
    rules = tuple(predict.ClassRule((k,), 0.5, predict.Cleaning(False, 0, 0)) for k in (1, 2))
    model = model_of(
        lambda image: np.concatenate([0 * image, image, -image], 1),
        is_exclusive=True,
        rules=rules,
        values=(0, 7, 9),
    )
    assert run(images, model=model) == 0
    mask = np.asarray(Image.open(tmp_path / "masks/b.png"))
    assert set(np.unique(mask)) == {7, 9}
    assert (mask[2:6, 1:4] == 7).all()


@pytest.mark.parametrize("outputs", [1, 3, 4])
def test_probabilities_equal_those_of_ushape_bit_for_bit(outputs):
    logits = np.random.default_rng(0).normal(0, 5, (2, outputs, 31, 33)).astype(np.float32)
    logits[0, :, 0, 0] = 200 * np.arange(outputs) - 300
    names = ("background", "cell") if outputs == 1 else ("background", "cell", "nucleus")
    space = LabelSpace(values=tuple(range(len(names))), names=names, has_distance=outputs == 4)
    model = SimpleNamespace(is_exclusive=outputs > 1, class_channels=min(outputs, 3))
    found = predict.Model._to_probabilities(model, logits)
    assert found.dtype == np.float32
    assert np.array_equal(found, space.probabilities_of(logits))
