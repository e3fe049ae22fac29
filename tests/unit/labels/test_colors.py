import numpy as np
import pytest

from ushape import config
from ushape.labels import LabelConfig, LabelSpace
from ushape.labels.colors import colors_of, name_color, rgb_text
from ushape.types import MaskEncoding

PALETTE = MaskEncoding(kind="palette", palette=((0, 0, 0), (1, 2, 3)))


@pytest.mark.parametrize(
    ("encoding", "codes", "colors"),
    [
        (MaskEncoding(), [0, 7, 255], [0, 0x070707, 0xFFFFFF]),
        (MaskEncoding(dtype="uint16"), [300], [-1]),
        (MaskEncoding(dtype="bool"), [0, 1], [0, 0xFFFFFF]),
        (PALETTE, [0, 1, 2], [0, 0x010203, -1]),
        (MaskEncoding(kind="colors"), [0x010203], [0x010203]),
    ],
)
def test_colors_of_codes_are_those_that_a_viewer_shows(encoding, codes, colors):
    assert colors_of(np.array(codes), encoding).tolist() == colors


def test_name_color_adds_the_code_of_other_colors():
    assert name_color(0x00FF00) == "green"
    assert name_color(0xFE0000) == "red"
    assert name_color(0xFA3253) == "red #fa3253"


def test_label_config_accepts_colors_as_text():
    found = config.override(LabelConfig(), ['values=["#000000", "#00ff00"]', 'ignore="#ff0000"'])
    assert (found.values, found.ignore) == ((0, 0x00FF00), 0xFF0000)


def test_label_space_compares_files_by_color():
    space = LabelSpace(values=(0, 1), names=("b", "c"), colors=(0, 0x010203))
    assert space.classes_of(np.array([0, 1]), PALETTE).tolist() == [0, 1]
    colored = MaskEncoding(kind="colors")
    assert space.classes_of(np.array([0, 0x010203]), colored).tolist() == [0, 1]
    assert space.unknown_values([0, 5], colored) == [5]
    assert space.values_of(np.array([0, 1])).tolist() == [0, 1]


def test_label_space_with_further_and_nearest_values():
    space = LabelSpace(values=(0, 255), names=("b", "c"), further_values=((1, 1),))
    assert space.classes_of(np.array([0, 1, 255])).tolist() == [0, 1, 1]
    assert space.class_pixels({0: 5, 1: 2, 255: 3}) == (5, 5)
    space = LabelSpace(values=(0, 100, 200), names=("a", "b", "c"), nearest=True)
    assert space.classes_of(np.array([49, 51, 160])).tolist() == [0, 1, 2]


def test_rgb_text_shows_two_digits_of_each_channel():
    assert rgb_text((0, 10, 255)) == "#000aff"
