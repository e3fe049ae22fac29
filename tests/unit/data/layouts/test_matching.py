"""Pairs of image and mask by their names alone."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ushape.data.layouts.matching import match_names
from ushape.errors import DataError


def match(images, masks, suffix=".png"):
    """Return the image of each mask."""
    return match_names({name: name + suffix for name in images}, masks).image_of


NUMBERS = [3, 7, 10, 11, 12, 110]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x{}", "x{}"),
        ("x{}", "x{}_P"),
        ("IMG_{}", "img_{}"),
        ("cells {}", "Mask of cells {}"),
        ("field{}", "field{}_Simple Segmentation"),
        ("slide 7 [x={},y=0]", "slide 7 [x={},y=0]-labelled"),
        ("im{}", "im{}.ah"),
        ("shot{}", "shot{}.png"),
        ("shot{}", "shot{}.png_mask"),
        ("{}", "{}_cp_masks"),
        ("train_{}", "train_{}_anno"),
        ("{}_training", "{}_manual1"),
        ("volume-{}", "segmentation-{}"),
        ("img_{}_raw", "gt_{}_seg"),
        ("case_{}/imaging", "case_{}/segmentation"),
        ("s{}/image", "s{}/mask"),
        ("p1/{}", "p1_{}"),
        ("{}_leftImg8bit", "{}_gtFine_labelIds"),
        ("ISIC_{}", "ISIC_{}_segmentation"),
        ("Seq05VD_f{}", "Seq05VD_f{}_L"),
        ("case{}_0000", "case{}"),
        ("p1/image/{}", "p1/annotation/{}"),
        ("TCGA-{}-01Z", "TCGA-{}-01Z_bin_mask"),
        ("satImage_{}", "gt_{}"),
        ("{}_sat", "{}_mask"),
    ],
)
def test_match_names_finds_the_shared_difference(image, mask):
    images = [image.format(number) for number in NUMBERS]
    masks = [mask.format(number) for number in NUMBERS]
    assert match(images, masks) == dict(zip(masks, images, strict=True))


def test_match_names_finds_a_difference_between_two_varying_parts():
    both = [(f"p{k}/images/{n}", f"p{k}/drawn/{n}") for k in range(3) for n in range(3)]
    assert match([one for one, _ in both], [two for _, two in both]) == {b: a for a, b in both}


def test_match_names_compares_composed_names():
    composed = [f"M\u00fcller {number}" for number in NUMBERS]
    separate = [unicodedata.normalize("NFD", name) for name in composed]
    assert composed != separate
    assert match(composed, separate) == dict(zip(separate, composed, strict=True))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["x1", "x2"], ["x11", "x12"]),
        (["x1", "x2", "x3"], ["x11", "x12", "x13"]),
        (["x1", "x2", "x3"], ["1x1", "1x2", "1x3"][:0]),
        (["a"], ["zebra"]),
        (["cell2"], ["cel2"]),
        (["red", "green", "blue"], ["one", "two", "three"]),
        (["a/1", "b/1"], ["1"]),
    ],
)
def test_match_names_does_not_join_other_names(images, masks):
    assert match(images, masks) == {}


def test_match_names_with_a_usual_word_needs_one_pair_only():
    assert match(["a", "b_image"], ["a_mask", "b_label"]) == {"a_mask": "a", "b_label": "b_image"}


def test_match_names_with_unique_file_names_in_other_folders():
    images = ["p1/a", "p1/b", "p2/c", "p3/d"]
    assert match(images, ["a", "b", "c", "d"]) == dict(zip("abcd", images, strict=True))


def test_match_names_with_a_difference_in_half_of_the_masks():
    images = [f"x{number}" for number in NUMBERS]
    masks = [*images[:3], *(f"{name}_P" for name in images[3:])]
    assert match(images, masks) == dict(zip(masks, images, strict=True))


@pytest.mark.parametrize("kinds", [("_1stHO", "_2ndHO"), ("", "_color"), ("_mask", "_mask_1")])
def test_match_names_refuses_two_masks_of_each_image(kinds):
    images = [f"Image_{number}L" for number in NUMBERS]
    with pytest.raises(DataError) as error:
        match(images, [name + kind for name in images for kind in kinds])
    assert error.value.code == "ambiguous_mask"
    assert "--masks" in error.value.hint
    for kind in kinds:
        assert f"Image_10L{kind}" in error.value.message


def test_match_names_refuses_two_images_of_each_mask():
    images = [f"p{number}_{kind}" for number in NUMBERS for kind in ("t1", "t2")]
    with pytest.raises(DataError) as error:
        match(images, [f"p{number}" for number in NUMBERS])
    assert error.value.code == "ambiguous_image"


WORDS = st.text(st.sampled_from("abcé_- .ABC"), max_size=6)


@given(st.sets(st.integers(0, 999), min_size=3, max_size=12), WORDS, WORDS, WORDS, WORDS)
def test_match_names_never_joins_two_numbers(numbers, start, end, before, after):
    images = {f"{start}{number}{end}": number for number in numbers}
    masks = {f"{before}{number}{after}": number for number in numbers}
    found = match(images, list(masks))
    assert all(masks[mask] == images[image] for mask, image in found.items())
    if not end and not start:
        assert len(found) == len(masks)
