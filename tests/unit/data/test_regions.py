"""Choice of regions by the names of classes."""

import pytest

from codes import raises_code
from dicoms import box, save_series, save_structures
from ushape.data.discovery import discover
from ushape.data.regions import choose_regions
from ushape.errors import ConfigError
from ushape.io.annotations import read_annotation


@pytest.fixture
def listing(tmp_path):
    save_series(tmp_path / "ct")
    regions = [("Body", [box(0, 0, 8, 6)]), ("Left  Lung", [box(1, 2, 5, 4)])]
    save_structures(tmp_path / "rs.dcm", regions)
    return discover(tmp_path)


def test_named_regions_are_the_classes_in_their_order(listing):
    chosen = choose_regions(listing, ["background", "left lung", "body"])
    assert chosen.class_names == ("background", "left lung", "body")
    [case] = chosen.cases
    codes = read_annotation(case.mask, case.image).codes
    assert [(codes == code).sum() for code in (1, 2)] == [8, 40]
    [case] = choose_regions(listing, ["background", "left lung"]).cases
    assert (read_annotation(case.mask, case.image).codes != 0).sum() == 8


def test_new_names_of_all_regions_choose_none(listing):
    assert choose_regions(listing, ["background", "Koerper", "Lunge"]) == listing
    assert choose_regions(listing, []) == listing


def test_unknown_regions_beside_known_ones_are_refused(listing):
    with raises_code(ConfigError, "unknown_region") as error:
        choose_regions(listing, ["background", "body", "left lungs"])
    assert "Left Lung" in error.value.hint


def test_region_in_the_place_of_the_background_is_refused(listing):
    with raises_code(ConfigError, "region_as_background") as error:
        choose_regions(listing, ["body", "left lung"])
    assert "[background, body, ...]" in error.value.hint


def test_data_to_evaluate_may_lack_regions_of_the_run(listing):
    chosen = choose_regions(listing, ["background", "Heart", "Body"], may_lack=True)
    [case] = chosen.cases
    codes = read_annotation(case.mask, case.image).codes
    assert set(codes.ravel()) == {0, 2}
