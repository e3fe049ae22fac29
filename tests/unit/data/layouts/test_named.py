"""Images and masks in folders that the user specifies."""

import pytest

from ushape.data.discovery import discover
from ushape.errors import DataError


@pytest.fixture
def bio(draw, tmp_path):
    for number in range(3):
        draw(f"bio/images/slide{number}.png")
        draw(f"bio/masks/slide{number}.png", number)
    return tmp_path / "bio"


@pytest.mark.parametrize("data", ["bio", "bio/images"])
def test_masks_that_are_the_images_are_refused(bio, data):
    with pytest.raises(DataError) as error:
        discover(bio.parent / data, bio / "images")
    assert error.value.code == "masks_are_images"
    assert "most similar" not in error.value.message


def test_masks_that_are_the_only_images_are_refused(bio):
    for path in (bio / "masks").iterdir():
        path.unlink()
    with pytest.raises(DataError) as error:
        discover(bio, bio / "images")
    assert error.value.code == "masks_are_images"


def test_masks_inside_the_data_folder(bio):
    found = discover(bio, bio / "masks")
    assert [case.id for case in found.cases] == ["slide0", "slide1", "slide2"]
    assert {case.image.parent.name for case in found.cases} == {"images"}


def test_masks_by_a_pattern(draw, bio, tmp_path):
    for number in range(3):
        draw(f"bio/masks/slide{number}_edge.png", number + 1)
    with pytest.raises(DataError) as error:
        discover(bio / "images", bio / "masks")
    assert error.value.code == "ambiguous_mask"
    found = discover(bio, bio / "masks" / "*_edge.png")
    assert [case.mask.name for case in found.cases] == [f"slide{n}_edge.png" for n in range(3)]


def test_masks_by_a_pattern_without_files_are_refused(bio):
    with pytest.raises(DataError) as error:
        discover(bio, bio / "masks" / "*_nothing.png")
    assert error.value.code == "no_masks"
