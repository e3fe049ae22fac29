"""Each check finds what was made to show it, and nothing in clean data."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ushape.data import checks
from ushape.data.checks import check_before_training, check_dataset
from ushape.data.scan import scan_dataset
from ushape.data.splits import SplitConfig, split_dataset
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.io.annotations import read_annotation
from ushape.io.orientation import as_displayed
from ushape.labels import LabelConfig
from ushape.planning.hardware import inspect_machine
from ushape.planning.planner import make_plan
from ushape.planning.recipe import TrainConfig
from ushape.planning.recipes import load_recipe

SHARED = Path(__file__).parents[5] / "shared" / "data"
SIZE = 96


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "data"
    write_data_set(folder, 20, SyntheticConfig(size=SIZE, groups=5, spacing_px=24), seed=3)
    return folder


@pytest.fixture
def data(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "data")


def check(folder, masks=None, **labels):
    stats = scan_dataset(folder, masks, LabelConfig(**labels), workers=2)
    return check_dataset(stats, split=SplitConfig(), seed=0)


def found(folder, **labels):
    return {finding.check: finding for finding in check(folder, **labels).findings}


def load(path):
    return np.asarray(Image.open(path))


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)


def change(path, function):
    save(path, function(load(path)))


def image(data, number=1, dish=1):
    return data / "images" / f"dish{dish:02d}_{number:02d}.png"


def mask(data, number=1, dish=1):
    return data / "masks" / f"dish{dish:02d}_{number:02d}.png"


def test_check_of_clean_data_finds_nothing(clean):
    assert check(clean).findings == ()


def test_check_finds_files_without_a_partner(data):
    mask(data).unlink()
    image(data, 2).unlink()
    findings = [f for f in check(data).findings if f.check == "unpaired"]
    assert [f.text.split(",")[0] for f in findings] == [
        "1 image has no mask",
        "1 mask has no image",
    ]


def test_check_finds_damaged_and_empty_files(data):
    image(data).write_bytes(image(data).read_bytes()[:200])
    mask(data, 2).write_bytes(b"")
    findings = found(data)
    assert findings["unreadable"].cases == ("dish01_01",)
    assert findings["zero_bytes"].cases == ("dish01_02",)
    assert findings["unreadable"].severity == findings["zero_bytes"].severity == "error"


def test_check_finds_other_sizes_and_transposed_masks(data):
    for path in (image(data), image(data, 2)):
        change(path, lambda array: array[:80])
    change(mask(data), lambda array: array[:80].T)
    findings = found(data)
    assert findings["transposed"].cases == ("dish01_01",)
    assert findings["size"].cases == ("dish01_02",)
    assert "image 80 × 96, mask 96 × 80" in findings["transposed"].text


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("drawn_on", ["displayed", "stored"])
def test_masks_fit_photographs_that_exif_turns_as_displayed_or_as_stored(
    data, orientation, drawn_on
):
    # The image has the size of its mask in every orientation: the outline decides.
    path, own_mask = image(data), mask(data)
    exif = Image.Exif()
    exif[274] = orientation
    Image.open(path).save(path.with_suffix(".jpg"), exif=exif, quality=95)
    path.unlink()
    if drawn_on == "displayed":
        change(own_mask, lambda codes: as_displayed(codes, orientation))
    finding = found(data)["exif"]
    assert finding.cases == ("dish01_01",)
    assert not finding.in_copy
    is_displayed = drawn_on == "displayed"
    assert finding.severity == ("note" if is_displayed else "warning")
    assert finding.text.endswith(
        f"fit the {'displayed image' if is_displayed else 'stored pixels'}."
    )
    read, codes = read_annotation(own_mask, path.with_suffix(".jpg")), load(own_mask)
    assert read.turn == drawn_on
    assert (read.codes == (codes if is_displayed else as_displayed(codes, orientation))).all()


def test_check_finds_empty_masks(data):
    change(mask(data), np.zeros_like)
    finding = found(data)["empty"]
    assert finding.cases == ("dish01_01",)
    assert finding.severity == "note"
    assert "5%" in finding.text


def test_check_finds_soft_edges_of_antialiasing(data):
    for path in sorted((data / "masks").iterdir()):
        small = Image.open(path)
        big = small.resize((3 * SIZE, 3 * SIZE), Image.Resampling.BILINEAR)
        big.resize((SIZE, SIZE), Image.Resampling.BOX).save(path)
    finding = found(data)["soft_edges"]
    assert len(finding.cases) == 20
    assert finding.severity == "warning"
    assert "nearer one of 0 and 255" in finding.text
    assert "labels.threshold=128" in finding.fix
    assert "mask_values" not in found(data)


def test_check_finds_soft_edges_of_jpeg(data):
    for path in sorted((data / "masks").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    assert "soft_edges" in found(data)


def test_check_does_not_take_classes_for_soft_edges(data):
    for path in sorted((data / "masks").iterdir()):
        change(
            path,
            lambda array: np.where(array, np.indices(array.shape)[0] // 16 + 1, 0).astype("u1"),
        )
    findings = found(data)
    assert "soft_edges" not in findings
    assert "object_ids" not in findings


def test_check_finds_rare_colors(data):
    for path in sorted((data / "masks").iterdir()):
        color = np.where(load(path)[..., None], (0, 128, 0), (128, 0, 0)).astype(np.uint8)
        if path == mask(data):
            color[0, 0] = (12, 34, 56)
        save(path, color)
    finding = found(data)["stray_values"]
    assert finding.cases == ("dish01_01",)
    assert "#0c2238" in finding.text


def test_check_finds_values_that_are_not_listed(data):
    change(mask(data), lambda array: np.where(array, 7, 0).astype("u1"))
    finding = found(data, values=(0, 255))["stray_values"]
    assert finding.severity == "error"
    assert "7" in finding.text


def three_classes(data, third=3):
    for path in sorted((data / "masks").iterdir()):
        change(
            path,
            lambda array: np.where(array, 1 + (np.indices(array.shape)[0] > 40), 0).astype("u1"),
        )
        if third and path.name.startswith("dish02"):
            change(
                path,
                lambda array: np.where(np.indices(array.shape)[1] > 80, third, array).astype("u1"),
            )


def test_check_makes_the_split_of_a_training(data):
    three_classes(data, third=3)
    checked = check(data)
    found = scan_dataset(data, None, LabelConfig(), workers=1)
    trained = make_plan(
        found,
        replace(load_recipe("auto"), train=TrainConfig(epochs=1)),
        inspect_machine("cpu"),
        elapsed_s=lambda: 0.0,
    )
    assert checked.splits == trained.splits
    # The only group with the third class stays in training, where it can be learned.
    assert checked.stats.part_of["dish02_01"] == "train"


def test_check_finds_gaps_and_classes_of_one_group(data):
    three_classes(data, third=9)
    findings = found(data)
    assert "between 0 and 9: 3, 4, 5, 6, 7, 8." in findings["class_gaps"].text
    assert "only in group dish02" in findings["class_in_one_group"].text


def test_check_finds_rare_classes(data):
    three_classes(data, third=0)
    for path in (mask(data), mask(data, 1, 2)):

        def corner(array):
            array = array.copy()
            array[:2, :2] = 3
            return array

        change(path, corner)
    assert "Class 3" in found(data)["rare_class"].text


def test_check_finds_object_ids(data):
    from ushape.transforms.border_weights import find_objects

    for path in sorted((data / "masks").iterdir()):
        change(path, lambda array: find_objects(array > 0).astype(np.uint8))
    finding = found(data)["object_ids"]
    assert "labels.instances=true" in finding.fix
    assert "class_gaps" not in found(data)
    assert found(data, threshold=1) == {}
    assert found(data, instances=True) == {}


def test_check_finds_masks_that_are_the_image(data):
    shutil.copy(image(data), mask(data))
    assert found(data)["mask_is_image"].cases == ("dish01_01",)


def test_check_finds_inverted_masks(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(12):
        y, x = np.indices((64, 64))
        center = rng.integers(20, 44, 2)
        disc = (y - center[0]) ** 2 + (x - center[1]) ** 2 < rng.integers(8, 14) ** 2
        picture = 80 + 60 * disc + rng.normal(0, 12, (64, 64))
        mask = disc != (index == 5)
        for part, array in (("images", picture), ("masks", 255 * mask)):
            (tmp_path / part).mkdir(exist_ok=True)
            save(tmp_path / part / f"x{index}.png", array.clip(0, 255).astype(np.uint8))
    assert found(tmp_path)["inverted"].cases == ("x5",)


def test_check_finds_mixed_channels_and_depths(data):
    save(image(data), np.stack(3 * [load(image(data))], axis=-1))
    save(image(data, 2), load(image(data, 2)).astype(np.uint16) * 200)
    findings = found(data)
    assert findings["channels"].cases == ("dish01_01",)
    assert findings["channels"].severity == "error"
    assert findings["depth"].cases == ("dish01_02",)
    assert "19 of 1 channel, 1 of 3 channels" in findings["channels"].text


def test_check_finds_images_beside_volumes(data):
    import tifffile

    for path in (image(data), mask(data)):
        volume = np.stack([load(path)] * 4)
        tifffile.imwrite(path.with_suffix(".tif"), volume, photometric="minisblack")
        path.unlink()
    findings = found(data)
    assert findings["dimensions"].cases == ("dish01_01",)
    assert findings["dimensions"].severity == "error"


def test_check_finds_mixed_encodings(data):
    change(mask(data), lambda array: np.stack([array, 0 * array, 0 * array], axis=-1))
    finding = found(data)["encoding"]
    assert finding.cases == ("dish01_01",)
    assert "#ffffff in 19 masks, #ff0000 in 1 mask" in finding.text


@pytest.mark.parametrize("value", [0, 255])
def test_check_finds_masks_of_one_value(data, value):
    for path in (data / "masks").iterdir():
        change(path, lambda array: np.full_like(array, value))
    finding = found(data)["mask_values"]
    assert finding.severity == "error"
    assert str(value) in finding.text


def test_check_warns_of_too_few_inferred_groups(data):
    for path in data.rglob("dish0[345]*"):
        path.unlink()
    findings = found(data)
    assert "split" not in findings
    assert findings["doubtful_groups"].severity == "warning"
    assert "dish01, dish02" in findings["doubtful_groups"].text


def test_check_finds_too_few_stated_groups(data):
    stats = scan_dataset(data, None, LabelConfig(), "dish", workers=1)
    findings = check_dataset(stats, split=SplitConfig(), seed=0).findings
    finding = next(one for one in findings if one.check == "split")
    assert finding.severity == "error"
    assert "in 1 group;" in finding.text


def test_warning_of_inferred_groups_is_part_of_the_split(data):
    for path in data.rglob("dish0[345]*"):
        path.unlink()
    stats = scan_dataset(data, None, LabelConfig(), workers=1)
    assert stats.grouping.warning in split_dataset(stats, SplitConfig(), seed=0).text


def test_checks_are_all_documented():
    source = "".join(path.read_text() for path in Path(checks.__file__).parent.glob("*.py"))
    names = set(re.findall(r'check="(\w+)"', source)) | {"channels", "dimensions", "depth"}
    page = (Path(__file__).parents[4] / "docs" / "how-to" / "prepare-data.md").read_text()
    assert len(names) > 20
    assert not [name for name in names if f"`{name}`" not in page]


def test_check_finds_odd_images(data):
    import tifffile

    change(image(data), lambda array: np.full_like(array, 7))
    values = load(image(data, 2)).astype(np.float32)
    values[3, 4:6] = np.nan, np.inf
    image(data, 2).unlink()
    tifffile.imwrite(image(data, 2).with_suffix(".tif"), values)
    rgba = np.stack([load(image(data, 3))] * 3 + [np.full((SIZE, SIZE), 255, np.uint8)], axis=-1)
    save(image(data, 3), rgba)
    findings = found(data)
    assert findings["constant"].cases == ("dish01_01",)
    assert findings["not_finite"].cases == ("dish01_02",)
    assert "2 values that are NaN" in findings["not_finite"].text
    assert findings["alpha"].cases == ("dish01_03",)
    assert findings["equal_channels"].cases == ("dish01_03",)


def test_check_finds_copies_within_and_across_groups(data):
    shutil.copy(image(data), image(data, 4))
    shutil.copy(image(data, 2), image(data, 2, dish=3))
    checked = check(data)
    findings = {finding.check: finding for finding in checked.findings}
    assert findings["duplicate"].severity == "note"
    across = findings["duplicate_across_groups"]
    assert across.severity == "warning"
    assert "keeps their groups together" in across.text
    part_of = checked.stats.part_of
    assert len({part_of[case] for case in part_of if case[:6] in ("dish01", "dish03")}) == 1


def test_check_finds_recompressed_and_resized_copies(data):
    copy = Image.open(image(data)).convert("L").resize((120, 120)).resize((SIZE, SIZE))
    copy.save(image(data, 1, dish=4).with_suffix(".jpg"), quality=30)
    image(data, 1, dish=4).unlink()
    finding = found(data)["near_duplicate_across_groups"]
    assert finding.cases == ("dish04_01",)


def test_check_finds_ungrouped_frames(tmp_path):
    rng = np.random.default_rng(0)
    scene = np.cumsum(rng.normal(0, 1, (64, 400)), axis=1)
    scene = (scene - scene.min()) / np.ptp(scene) * 255
    for index in range(12):
        picture = scene[:, 4 * index : 4 * index + 64].astype(np.uint8)
        for part, array in (("images", picture), ("masks", np.uint8(255) * (picture > 128))):
            (tmp_path / part).mkdir(exist_ok=True)
            save(tmp_path / part / f"{index * index + 10:04d}.png", array)
    assert "as in a volume" in found(tmp_path)["ungrouped"].text


def test_check_finds_shifted_masks(data):
    for path in (mask(data, 2, dish=2), mask(data, 3, dish=1)):
        change(path, lambda array: np.roll(array, (6, -6), axis=(0, 1)))
    finding = found(data)["misplaced"]
    assert set(finding.cases) == {"dish02_02", "dish01_03"}
    assert "about -6 pixels in y and 6 in x" in finding.text


@pytest.mark.parametrize(
    ("images", "masks", "peculiar"),
    [
        ("isbi2012/train", None, set()),
        ("lgg/kaggle_3m", None, {"empty", "equal_channels"}),
        ("carvana/train_512", "carvana/train_masks_512", set()),
    ],
)
def test_check_of_real_data_finds_only_notes(images, masks, peculiar):
    checked = check(SHARED / images, SHARED / masks if masks else None)
    assert {finding.check for finding in checked.findings} == peculiar
    assert all(finding.severity == "note" for finding in checked.findings)


def test_the_warning_about_groups_is_printed_once_with_the_split(data):
    stats = scan_dataset(data, None, LabelConfig(), workers=0)
    stats = replace(stats, grouping=replace(stats.grouping, warning="Only 2 groups."))
    assert not any("Only 2 groups." in line for line in check_before_training(stats))
    assert split_dataset(stats, SplitConfig(), seed=0).text.count("Only 2 groups.") == 1
