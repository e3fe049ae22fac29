"""What the verbs say must be so: seen images, finished runs, outputs that exist."""

import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def run(ushape, cells, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest") / "run"
    ended = ushape("train", cells, "-o", folder, "--epochs=1", *tiny)
    assert ended.code == 0, ended.error
    return folder


def test_images_of_the_training_are_not_called_unseen(run, cells, ushape, tmp_path):
    assert "not used in training" in ushape("evaluate", run).output
    copied = shutil.copytree(cells, tmp_path / "copied")
    for data in (cells, copied):
        ended = ushape("evaluate", run, data, "-o", tmp_path / data.name)
        assert "not used in training" not in ended.output
        assert "images were used in training" in ended.output


def test_a_finished_training_is_not_trained_on(run, ushape, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "report.html").unlink()
    ended = ushape("train", "--resume", copied)
    assert ended.code == 0, ended.error
    assert "Epoch" not in ended.output
    assert (copied / "report.html").exists()
    assert (copied / "model.safetensors").read_bytes() == weights
    (copied / "model.safetensors").unlink()
    ended = ushape("train", "--resume", copied)
    assert ended.code == 2
    assert "no longer has" in ended.error


def test_a_damaged_checkpoint_is_named(run, ushape, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "checkpoints" / "ended").unlink()
    last = copied / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    ended = ushape("train", "--resume", copied)
    assert ended.code == 2
    assert "damaged" in ended.error


def test_nothing_beside_a_mask_is_overwritten(run, cells, ushape, tmp_path):
    image = next((cells / "images").iterdir())
    for name, option in ((f"{image.stem}_overlay.png", "--overlay"), (f"{image.stem}.npz", None)):
        output = tmp_path / name
        output.mkdir()
        (output / name).write_text("precious")
        ended = ushape("predict", run, image, "-o", output, option or "--probabilities=npz")
        assert (ended.code, ended.error_code) == (2, "output_exists")
        assert name in ended.error
        assert (output / name).read_text() == "precious"
    pair = tmp_path / "pair"
    pair.mkdir()
    for name in ("a.png", "a_overlay.png"):
        shutil.copy(image, pair / name)
    ended = ushape("predict", run, pair, "-o", tmp_path / "out", "--overlay")
    assert ended.code == 2
    assert "a_overlay.png" in ended.error
    ended = ushape("predict", run, image, "--rle", tmp_path / "x.csv", "--overlay")
    assert (ended.code, ended.error_code) == (2, "missing_output")


def test_two_images_of_one_name_in_a_submission(run, cells, ushape, tmp_path):
    image = next((cells / "images").iterdir())
    for part in ("a", "b"):
        (tmp_path / "in" / part).mkdir(parents=True)
        shutil.copy(image, tmp_path / "in" / part / "x.png")
    ended = ushape("predict", run, tmp_path / "in", "--rle", tmp_path / "x.csv")
    assert ended.code == 2
    assert "share the row x.png" in ended.error


def test_broken_runs_are_named(run, ushape, cells, tmp_path):
    image = next((cells / "images").iterdir())
    for number, (file, content) in enumerate(
        [("plan.json", "[]"), ("cases.json", "{}"), ("splits.json", "{}")]
    ):
        copied = shutil.copytree(run, tmp_path / str(number))
        (copied / file).write_text(content)
        verb = ("predict", copied, image, "-o", tmp_path / "out") if number == 0 else None
        ended = ushape(*(verb or ("evaluate", copied)))
        assert ended.code == 2, ended.error
        assert "Hint" in ended.error


def test_a_failed_training_leaves_no_folder(ushape, cells, tmp_path):
    assert ushape("train", tmp_path / "nowhere", cwd=tmp_path).code == 2
    assert ushape("train", cells, "--set=network.dims=3", cwd=tmp_path).code == 2
    assert not list((tmp_path / "runs").glob("*"))


def test_unwritable_outputs_and_odd_numbers_are_one_paragraph(run, ushape, cells, tmp_path):
    image, file = next((cells / "images").iterdir()), tmp_path / "file"
    file.touch()
    recipe = tmp_path / "noise.yaml"
    recipe.write_bytes(np.random.default_rng(0).bytes(50))
    for arguments in (
        ("train", cells, "-o", file / "x", "--epochs=1"),
        ("predict", run, image, "-o", file),
        ("evaluate", run, cells, "-o", file / "x"),
        ("example", file / "x"),
        ("example", tmp_path / "new", "--seed=-1"),
        ("train", cells, "--seed=-1"),
        ("train", cells, "--recipe", recipe),
        ("train", cells, "--set=train.workers=-1"),
        ("train", cells, "--set=sampling.patch_shape=[-8,0]"),
        ("train", cells, "--set=predict.tile_shape=[-1,5]"),
        ("train", cells, "--set=train.learning_rate=.nan"),
        ("cross-validate", cells, "--folds=1"),
    ):
        ended = ushape(*arguments, cwd=tmp_path)
        assert ended.code == 2, (arguments, ended.error)
        assert "Hint" in ended.error
        assert "Traceback" not in ended.error


def test_the_version(ushape):
    assert ushape("--version").output.startswith("ushape 0.")


def test_images_without_information_are_warned_of(ushape, cells, tiny, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    first = sorted((data / "images").iterdir())[0]
    Image.fromarray(np.zeros_like(np.asarray(Image.open(first)))).save(first)
    ended = ushape("train", data, "-o", tmp_path / "run", "--epochs=1", *tiny)
    assert ended.code == 0, ended.error
    assert "Warning: In 1 image, all pixels have the same value." in ended.output


def write_pairs(folder, images, masks):
    for name, arrays in (("images", images), ("masks", masks)):
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(arrays):
            Image.fromarray(pixels).save(folder / name / f"n{number:02d}.png")


@pytest.mark.parametrize("kind", ["noise", "constant", "shuffled"])
def test_a_verdict_says_when_nothing_was_learned(kind, cells, tiny, ushape, tmp_path):
    rng = np.random.default_rng(0)
    masks = [np.asarray(Image.open(path)) for path in sorted((cells / "masks").iterdir())]
    images = [np.asarray(Image.open(path)) for path in sorted((cells / "images").iterdir())]
    if kind == "noise":
        images = [rng.integers(0, 255, mask.shape, np.uint8) for mask in masks]
        masks = [(rng.random(mask.shape) < 0.8).astype(np.uint8) * 255 for mask in masks]
    elif kind == "constant":
        images = [np.full(mask.shape, 90, np.uint8) for mask in masks]
    else:
        images = images[3:] + images[:3]
    write_pairs(tmp_path / "data", images, masks)
    ended = ushape(
        "train", tmp_path / "data", "-o", tmp_path / "run", "--epochs=2",
        *tiny,
    )  # fmt: skip
    assert ended.code == 0, ended.error
    assert "no better than a trivial baseline" in ended.output
    assert "trivial baselines" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_without_baselines_and_data_is_evaluated_with_constant_ones(
    run, cells, ushape, tmp_path
):
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "baselines.json").unlink()
    stored = (copied / "cases.json").read_text().replace(str(cells), str(tmp_path / "gone"))
    (copied / "cases.json").write_text(stored)
    ended = ushape("evaluate", copied, cells)
    assert ended.code == 0, ended.error
    assert "are not among the baselines" in ended.output
    assert not (copied / "baselines.json").exists()
