"""Meaning of mask values: one decision for every encoding, or a refusal."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from codes import raises_code
from ushape.data.classes.names import StatedClasses
from ushape.data.mask_values import interpret_masks
from ushape.data.reading import find_true_objects, read_classes
from ushape.data.scan import describe_dataset, scan_dataset
from ushape.errors import ConfigError
from ushape.labels import IGNORE, LabelConfig

SIZE = 64
CASES = 8
PALETTE = np.array([(0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)], np.uint8)


def disks(number, count=3, classes=1):
    """Class map (y, x) uint8 of disks that do not touch, in changing places."""
    rng = np.random.default_rng(number)
    y, x = np.indices((SIZE, SIZE))
    found = np.zeros((SIZE, SIZE), np.uint8)
    places = rng.permutation(9)[:count]
    for index, place in enumerate(places):
        center = 11 + 21 * np.array(divmod(int(place), 3))
        inside = (y - center[0]) ** 2 + (x - center[1]) ** 2 < rng.uniform(5, 8) ** 2
        found[inside] = 1 + index % classes
    return found


@pytest.fixture
def scan(tmp_path):
    """Function that writes a data set of the masks that `draw` returns, and scans it."""

    def write(draw, suffix=".png", **labels):
        rng = np.random.default_rng(0)
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
        for number in range(CASES):
            mask = draw(number)
            mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
            noise = rng.integers(0, 255, (mask.height, mask.width), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "images" / f"n{number}.png")
            options = {"quality": 90} if suffix == ".jpg" else {}
            mask.save(tmp_path / "masks" / f"n{number}{suffix}", **options)
        return scan_dataset(tmp_path, None, LabelConfig(**labels), workers=1)

    return write


def classes_of(stats, number):
    return read_classes(stats.case_stats[number].case, stats.space)


def notes(stats):
    return {note.check for note in stats.value_notes}


def indexed(classes, palette=PALETTE):
    image = Image.fromarray(classes, mode="P")
    image.putpalette(palette.ravel().tolist())
    return image


BINARY = {
    "0/1 beside 0/255": lambda n: disks(n) * (255 if n % 2 else 1),
    "1 bit beside gray": lambda n: (
        Image.fromarray(disks(n) > 0) if n % 2 else Image.fromarray(disks(n) * 255)
    ),
    "gray beside RGB": lambda n: np.stack([disks(n) * 255] * 3, -1) if n == 3 else disks(n) * 255,
    "gray beside red": lambda n: (
        np.stack([disks(n) * 255, 0 * disks(n), 0 * disks(n)], -1) if n % 3 else disks(n) * 255
    ),
    "palette beside gray": lambda n: indexed(disks(n)) if n % 2 else disks(n) * 255,
    "0/254": lambda n: disks(n) * 254,
    "bool": lambda n: Image.fromarray(disks(n) > 0),
}


@pytest.mark.parametrize("name", BINARY)
def test_masks_of_two_values_have_one_foreground(scan, name):
    stats = scan(BINARY[name])
    stats.raise_if_unusable()
    assert stats.space.names == ("background", "foreground")
    for number in range(CASES):
        np.testing.assert_array_equal(classes_of(stats, number), disks(number))
    assert ("encoding" in notes(stats)) == ("beside" in name and name != "gray beside RGB")
    assert stats.class_pixels(stats.readable[0])[1] == (disks(0) > 0).sum()


def test_predictions_have_the_encoding_of_most_masks(scan):
    stats = scan(lambda n: indexed(disks(n)) if n else disks(n) * 255)
    assert stats.encoding.kind == "palette"
    assert stats.space.values == (0, 1)
    stats = scan(lambda n: disks(n) * (255 if n < 3 else 1))
    assert stats.space.values == (0, 1)


def test_values_listed_by_the_user_are_not_united(scan):
    stats = scan(lambda n: disks(n) * (255 if n % 2 else 1), values=(0, 1, 255))
    assert len(stats.space.values) == 3


def test_classes_that_never_share_a_file_are_not_united(scan):
    stats = scan(lambda n: disks(n) * (2 if n % 2 else 1))
    assert stats.space.values == (0, 1, 2)


def test_palettes_in_another_order_are_compared_by_color(scan):
    def draw(number):
        classes = disks(number, classes=3)
        if number % 2:
            return indexed(classes)
        order = np.array([0, 3, 1, 2], np.uint8)  # Index of each class in the other palette.
        return indexed(order[classes], PALETTE[np.argsort(order)])

    stats = scan(draw)
    assert stats.space.names == ("background", "blue", "green", "red")
    for number in range(CASES):
        np.testing.assert_array_equal(classes_of(stats, number), disks(number, classes=3))


def test_values_of_three_areas_are_classes_not_soft_edges(scan):
    stats = scan(lambda n: np.array([0, 128, 255], np.uint8)[disks(n, classes=2)])
    assert stats.space.values == (0, 128, 255)
    assert notes(stats) == set()


def soften(classes):
    return np.round(ndimage.uniform_filter(255.0 * classes, 3)).astype(np.uint8)


def test_soft_edges_are_cut_at_the_middle(scan):
    stats = scan(lambda n: soften(disks(n) > 0))
    stats.raise_if_unusable()
    assert notes(stats) == {"soft_edges"}
    assert (stats.space.values, stats.space.threshold) == ((0, 255), 128)
    for number in range(CASES):
        np.testing.assert_array_equal(classes_of(stats, number), soften(disks(number) > 0) >= 128)


def test_soft_edges_beside_classes_are_refused(scan):
    def draw(number):
        classes = 100 * disks(number, classes=2)
        classes[:20] = soften(disks(number) > 0)[:20]
        return classes

    assert scan(draw).label_error.code == "ambiguous_soft_edges"
    stats = scan(draw, values=(0, 100, 200), nearest=True)
    stats.raise_if_unusable()


def test_smooth_probabilities_are_refused(scan):
    def draw(number):
        smooth = ndimage.gaussian_filter(255.0 * (disks(number) > 0), 6)
        return np.round(smooth * 255 / smooth.max()).astype(np.uint8)

    assert scan(draw).label_error.code in ("ambiguous_soft_edges", "too_many_mask_values")


def test_many_numbers_that_cover_areas_are_not_called_soft_edges(scan):
    def draw(number):
        areas = np.random.default_rng(0).permutation(100).astype(np.uint8)
        return np.kron(areas.reshape(10, 10), np.ones((8, 8), np.uint8))

    error = scan(draw).label_error
    assert error.code == "too_many_mask_values"
    assert "all 100 values are classes" in error.hint
    stated = scan(draw, values=tuple(range(100)))
    stated.raise_if_unusable()
    assert len(stated.space.values) == 100


def test_soft_masks_beside_0_and_1_are_refused(scan):
    def draw(number):
        return disks(number) if number < 3 else soften(disks(number) > 0)

    assert scan(draw).label_error.code == "ambiguous_soft_edges"


def enlarged(number, classes):
    """Disks with a radius of 15 to 24 pixels."""
    return np.kron(disks(number, count=4, classes=classes), np.ones((3, 3), np.uint8))


@pytest.mark.parametrize("classes", [1, 2])
def test_jpeg_colors_belong_to_the_nearest_color(scan, classes):
    stats = scan(lambda n: PALETTE[enlarged(n, classes)], suffix=".jpg")
    stats.raise_if_unusable()
    assert notes(stats) == {"soft_edges"}
    assert len(stats.space.values) == classes + 1
    # JPEG halves the resolution of colors, so that some pixels at edges are lost.
    for number in range(CASES):
        wrong = classes_of(stats, number) != enlarged(number, classes)
        assert wrong.mean() < 0.005


def test_jpeg_colors_between_two_others_are_refused(scan):
    colors = np.array([(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0)], np.uint8)
    stats = scan(lambda n: colors[disks(n, classes=3)], suffix=".jpg")
    assert stats.label_error.code == "ambiguous_soft_edges"


def test_object_ids_are_foreground(scan):
    def draw(number):
        return ndimage.label(disks(number, count=3 + number % 4))[0].astype(np.uint8)

    stats = scan(draw)
    assert notes(stats) == {"object_ids"}
    assert stats.space.names == ("background", "foreground")
    assert stats.class_pixels(stats.readable[1])[1] == (disks(1, count=4) > 0).sum()


@pytest.mark.parametrize("first", [0, 1])
def test_object_ids_with_a_negative_background_are_foreground(scan, first):
    def draw(number):
        ids = ndimage.label(disks(number, count=3 + number % 4))[0]
        return np.where(ids == 0, -1, ids + first - 1).astype(np.int32)

    stats = scan(draw, suffix=".tif")
    assert notes(stats) == {"object_ids"}
    assert "up to 6 objects" in stats.value_notes[0].text
    assert stats.space.names == ("background", "foreground")
    for number in range(4):
        classes = classes_of(stats, number)
        assert (classes == (disks(number, count=3 + number % 4) > 0)).all()
        objects = find_true_objects(stats.case_stats[number].case, classes, stats.space)
        assert (objects == ndimage.label(classes)[0]).all()
    assert any(f"{first} to {first + 5} = foreground" in line for line in describe_dataset(stats))
    stated = scan(draw, suffix=".tif", instances=True)
    assert stated.space == stats.space


def test_a_negative_value_inside_of_masks_is_not_the_background(scan):
    def draw(number):
        ids = ndimage.label(disks(number, count=3 + number % 4))[0].astype(np.int32)
        ids[30:34, 30:34] = -1  # Not annotated.
        return ids

    assert "object_ids" not in notes(scan(draw, suffix=".tif"))
    stats = scan(draw, suffix=".tif", instances=True)
    assert stats.space.threshold == 1
    assert classes_of(stats, 0).max() == 1
    assert (classes_of(stats, 0)[30:34, 30:34] == 0).all()


def test_an_id_of_several_parts_is_one_object_in_each_mask(scan):
    def draw(number):
        ids = np.zeros((40, 40), np.uint8)
        ids[2:5, 2:5] = ids[20:23, 20:23] = 7  # An object that another one hides in the middle.
        if number == 3:
            ids[30:33, 2:5] = 9
        return ids

    stats = scan(draw, instances=True)
    for number, count in ((0, 1), (3, 2)):
        classes = classes_of(stats, number)
        case = stats.case_stats[number].case
        assert find_true_objects(case, classes, stats.space).max() == count
    assert describe_dataset(stats)


def test_masks_of_one_value_have_connected_parts_as_objects(scan):
    stats = scan(lambda number: 255 * disks(number), instances=True)
    classes = classes_of(stats, 0)
    assert find_true_objects(stats.case_stats[0].case, classes, stats.space).max() == 3


def test_equally_many_object_ids_are_foreground_if_there_are_fewer_class_indices(scan):
    ids = np.zeros((40, 40), np.int32)
    ids[::2, ::2] = 1 + np.arange(400).reshape(20, 20)
    stats = scan(lambda number: np.roll(ids, number, axis=0), suffix=".tif")
    assert notes(stats) == {"object_ids"}
    assert stats.space.names == ("background", "foreground")
    assert scan(lambda number: 2 * ids, suffix=".tif").label_error.code == "too_many_mask_values"


def numbered(number, count, *, anywhere):
    """Squares with the numbers 1 to count, the same in all masks, at changing places or not."""
    ids = np.zeros(256, np.uint8)
    ids[:count] = 1 + np.arange(count)
    if anywhere:
        ids = np.random.default_rng(number).permutation(ids)
    square = np.zeros((4, 4), np.uint8)
    square[:3, :3] = 1
    return np.kron(ids.reshape(16, 16), square)


@pytest.mark.parametrize("count", [9, 70, 250])
def test_object_ids_that_are_the_same_in_all_masks_are_foreground(scan, count):
    stats = scan(lambda number: numbered(number, count, anywhere=True))
    assert notes(stats) == {"object_ids"}
    assert stats.space.names == ("background", "foreground")
    assert stats.space.states_objects
    stats = scan(lambda number: numbered(number, count, anywhere=True), instances=False)
    assert stats.label_error is not None or len(stats.space.values) == count + 1


def test_values_at_the_same_places_in_all_masks_are_classes_or_refused(scan):
    def draw(number):
        return numbered(number, 70, anywhere=False)

    error = scan(draw).label_error
    assert error.code == "too_many_mask_values"
    assert "labels.instances=true" in error.hint
    stats = scan(draw, instances=True)
    assert stats.space.names == ("background", "foreground")
    assert stats.space.states_objects
    assert len(scan(lambda number: numbered(number, 9, anywhere=False)).space.values) == 10


def layers(number):
    """Nine layers of a retina, which end at another place on the right of each image."""
    bounds = 5 * np.arange(10) + 10
    found = np.zeros((SIZE, SIZE), np.uint8)
    found[:, : SIZE - 3 * (number % 5)] = np.digitize(np.arange(SIZE), bounds)[:, None] % 10
    return found


def vertebrae(number):
    """Nine vertebrae below each other, at slightly different places in each image."""
    found = np.zeros((SIZE, SIZE), np.uint8)
    left = np.random.default_rng(number).integers(24, 32, size=9)
    for value in range(1, 10):
        top = 7 * value - 5 + number % 3
        found[top : top + 5, left[value - 1] : left[value - 1] + 12] = value
    return found


@pytest.mark.parametrize("draw", [layers, vertebrae])
def test_values_that_hardly_move_along_any_axis_are_classes(scan, draw):
    assert len(scan(draw).space.values) == 10


def test_instances_true_precedes_the_classes_of_the_folder(scan, tmp_path):
    names = ("background", *(f"part {value}" for value in range(1, 6)))
    stats = scan(lambda number: disks(number, count=5, classes=5), instances=True)
    stated = StatedClasses(source=tmp_path, names=names, ignore=5)
    meaning = interpret_masks(stats.readable, LabelConfig(instances=True), stated)
    assert {note.check for note in meaning.notes} == {"class_names"}
    assert meaning.space.states_objects
    assert (meaning.space.names, meaning.space.ignore) == (("background", "foreground"), 5)


def test_instances_true_precedes_values_that_all_mean_foreground(scan):
    def draw(number):
        return disks(number) * (255 if number % 2 else 1)

    assert not scan(draw).space.states_objects
    stats = scan(draw, instances=True)
    assert stats.space.states_objects
    assert notes(stats) == set()


def test_instances_true_excludes_values_of_masks_without_stated_objects(scan):
    with raises_code(ConfigError, "settings_conflict"):
        scan(disks, instances=True, values=(0, 1))


def test_instances_exclude_regions_and_other_thresholds():
    for other in ({"threshold": 128}, {"regions": {"all": (1, 2), "inner": (2,)}}):
        with raises_code(ConfigError, "settings_conflict"):
            LabelConfig(instances=True, **other)


def test_classes_of_one_object_each_are_not_object_ids(scan):
    stats = scan(lambda n: disks(n, count=5, classes=5))
    assert stats.space.values == (0, 1, 2, 3, 4, 5)


def voc(number):
    """Disks of two classes in a band of 255."""
    classes = disks(number, classes=2)
    band = ndimage.binary_dilation(classes > 0, iterations=2) & (classes == 0)
    return np.where(band, 255, classes).astype(np.uint8)


def test_void_around_objects_is_ignored(scan):
    stats = scan(voc)
    assert notes(stats) == {"void"}
    assert (stats.space.values, stats.space.ignore) == ((0, 1, 2), 255)
    assert (classes_of(stats, 0) == IGNORE).any()
    assert scan(voc, values=(0, 1, 2, 255)).space.ignore is None


@pytest.mark.parametrize("levels", [(0, 128, 255), (0, 85, 170), (0, 127, 254)])
def test_bands_of_gray_levels_are_classes(scan, levels):
    """The second class surrounds the first one as a void band would."""

    def draw(number):
        codes = voc(number)
        return np.array(levels, np.uint8)[np.select([codes == 255, codes > 0], [2, 1])]

    stats = scan(draw)
    assert (stats.space.values, stats.space.ignore) == (levels, None)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_lines_in_lossy_masks_are_one_class(scan, width):
    def draw(number):
        lines = np.zeros((SIZE, SIZE), np.uint8)
        for start in range(4 + number, SIZE, 16):
            lines[start : start + width, 4:60] = 255
        return lines

    stats = scan(draw, ".jpg")
    assert stats.space.ignore is None
    assert stats.class_pixels(stats.readable[0])[1] == (draw(0) > 0).sum()


def test_names_without_values_belong_to_the_classes_of_lossy_masks(scan, tmp_path):
    stats = scan(lambda n: disks(n) * 255, ".jpg")
    stated = StatedClasses(source=tmp_path / "classes.txt", names=("background", "nucleus"))
    meaning = interpret_masks(stats.readable, LabelConfig(), stated)
    assert (meaning.space.names, meaning.space.values) == (("background", "nucleus"), (0, 255))


def test_white_beside_numbered_classes_is_refused(scan):
    def draw(number):
        classes = disks(number, classes=2)
        classes[:, 50:] = 255
        return classes

    assert scan(draw).label_error.code == "ambiguous_white"
    assert scan(draw, ignore=255).space.values == (0, 1, 2)


def test_background_is_named_if_no_pixel_is_zero(scan):
    stats = scan(lambda n: 1 + disks(n))
    assert notes(stats) == {"background"}
    assert stats.space.values == (1, 2)
    # The value at the border is more likely the background than the lowest one.
    stats = scan(lambda n: np.where(disks(n), 1, 2).astype(np.uint8))
    assert stats.space.values == (2, 1)


def test_colors_are_named_and_shown_as_hexadecimal(scan):
    colors = np.array([(0, 0, 0), (0, 255, 0), (237, 34, 236)], np.uint8)
    stats = scan(lambda n: colors[disks(n, classes=2)])
    assert stats.space.names == ("background", "green", "magenta #ed22ec")
    assert stats.space.show_value(stats.space.values[1]) == "#00ff00"


def test_stated_colors_name_the_classes(scan, tmp_path):
    stats = scan(lambda n: PALETTE[disks(n, classes=2)])
    stated = StatedClasses(
        source=tmp_path / "classes.csv", names=("none", "a", "b"), colors=(0, 0x0000FF, 0x00FF00)
    )
    meaning = interpret_masks(stats.readable, LabelConfig(), stated)
    assert meaning.space.names == ("none", "a", "b")
    # Index masks with a palette of these colors have the same names.
    stats = scan(lambda n: indexed(disks(n, classes=2)))
    meaning = interpret_masks(stats.readable, LabelConfig(), stated)
    assert (meaning.space.names, meaning.space.values) == (("none", "a", "b"), (0, 1, 2))


def test_names_that_do_not_fit_are_not_used(scan, tmp_path):
    stats = scan(lambda n: disks(n, classes=2))
    stated = StatedClasses(source=tmp_path / "classes.csv", names=("a", "b"), values=(7, 9))
    meaning = interpret_masks(stats.readable, LabelConfig(), stated)
    assert [note.check for note in meaning.notes] == ["class_names"]
    assert meaning.space.names == ("background", "class 1", "class 2")


def test_float_masks_of_zero_and_one_have_two_classes(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    noise = np.random.default_rng(0)
    for number in range(4):
        np.save(tmp_path / "images" / f"n{number}.npy", noise.random((SIZE, SIZE)))
        np.save(tmp_path / "masks" / f"n{number}.npy", disks(number).astype(np.float32))
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=1)
    assert stats.space.values == (0, 1)


def test_ninety_thousand_objects_of_one_pixel_are_object_ids(tmp_path):
    ids = np.zeros((600, 600), np.uint32)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(3):
        ids[::2, ::2] = 1 + np.random.default_rng(number).permutation(90_000).reshape(300, 300)
        tifffile.imwrite(tmp_path / "masks" / f"{number}.tif", ids)
        image = (ids % 251).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=1)
    stats.raise_if_unusable()
    assert notes(stats) == {"object_ids"}
    case = stats.case_stats[0].case
    classes = read_classes(case, stats.space)
    assert classes.sum() == find_true_objects(case, classes, stats.space).max() == 90_000
