"""Slides as training data: parts at a stated resolution, with masks of three kinds."""

import json

import numpy as np
import pytest
import tifffile

from codes import raises_code
from slides import blobs, write_svs
from ushape.data.cache import SampleStore
from ushape.data.lazy import LazyImage, LazySamples
from ushape.data.parts import whole_of
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.data.reading import read_classes, read_image
from ushape.data.scan import scan_dataset
from ushape.errors import ConfigError, DataError
from ushape.io.streaming.slides import open_bands_at
from ushape.labels import LabelConfig, LabelSpace
from ushape.planning.case_file import case_from_row, case_to_row, parse_cases
from ushape.types import CaseFacts

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))
IMAGE, MASK = blobs()
LIMIT = 1 << 18


@pytest.fixture
def data(tmp_path):
    """Two slides of 600 x 800 pixels of 0.25 µm, with label masks."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for name in ("north", "south"):
        write_svs(tmp_path / "images" / f"{name}.svs", IMAGE)
        tifffile.imwrite(tmp_path / "masks" / f"{name}.tif", MASK, tile=(64, 64))
    return tmp_path


def scan(folder, mpp=0.5, limit=LIMIT):
    options = {"workers": 1, "divide_above_px": limit, "slide_mpp": mpp}
    found = scan_dataset(folder, None, LabelConfig(), **options)
    found.raise_if_unusable()
    return found


def assemble(cases, shape, read):
    whole = np.zeros(shape, np.uint8)
    for case in cases:
        rows, columns = (slice(*edge) for edge in case.box)
        whole[..., rows, columns] = read(case)
    return whole


def test_parts_of_a_slide_show_all_of_it_at_the_resolution(data):
    found = scan(data)
    cases = [case for case in found.grouping.cases if case.id.startswith("north/")]
    assert len(cases) > 20
    assert "0.5 µm per pixel" in found.listing.layout
    assert {one.spacing_mm for one in found.case_stats} == {(0.0005, 0.0005)}
    with open_bands_at(cases[0].image, 0.5) as bands:
        expected = bands.read(0, 300)
    assert (assemble(cases, (3, 300, 400), read_image) == expected).all()
    classes = assemble(cases, (300, 400), lambda case: read_classes(case, SPACE))
    assert (classes == MASK[1::2, 1::2]).all()  # The pixels at the centers.
    whole = whole_of(cases[0])
    assert (whole.id, whole.box, whole.mpp) == ("north", None, None)
    assert whole.mask == data / "masks" / "north.tif"


def test_patches_of_slides_are_read_from_the_files(data):
    found = scan(data)
    config = PreprocessingConfig(downscale=1, intensity="image", slide_mpp=0.5)
    prepare = Preprocessing(channels=3, config=config, space=SPACE, normalization=None)
    store = SampleStore(found.grouping.cases, prepare, keep=False)
    for number in (0, 7):
        lazy, loaded = LazySamples(store)[number], store[number]
        assert isinstance(lazy.image, LazyImage)
        assert (lazy.image[..., 3:20, 5:30] == loaded.image[:, 3:20, 5:30]).all()
        assert (lazy.classes == loaded.classes).all()
        assert lazy.normalization == loaded.normalization


def test_masks_of_another_resolution_fit_and_those_of_other_sides_do_not(data):
    target = data / "masks" / "north.tif"
    tifffile.imwrite(target, MASK[::4, ::4], tile=(64, 64))
    cases = [case for case in scan(data).grouping.cases if case.id.startswith("north/")]
    classes = assemble(cases, (300, 400), lambda case: read_classes(case, SPACE))
    assert (classes == MASK[::4, ::4].repeat(2, axis=0).repeat(2, axis=1)).all()
    tifffile.imwrite(target, MASK[:300], tile=(64, 64))
    with raises_code(DataError, "mask_size_mismatch"):
        scan(data)


def test_outlines_of_qupath_are_drawn_within_each_part(tmp_path):
    write_svs(tmp_path / "a.svs", IMAGE)
    square = [[100, 40], [700, 40], [700, 560], [100, 560], [100, 40]]
    hole = [[300, 200], [500, 200], [500, 400], [300, 400], [300, 200]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [square, hole]},
        "properties": {"classification": {"name": "tumor"}},
    }
    values = {"type": "FeatureCollection", "features": [feature]}
    (tmp_path / "a.geojson").write_text(json.dumps(values))
    expected = np.zeros((300, 400), np.uint8)
    expected[20:280, 50:350] = 1
    expected[100:200, 150:250] = 0
    for limit in (LIMIT, None):  # In parts, and as a single one.
        found = scan(tmp_path, limit=limit)
        cases = found.grouping.cases
        assert (len(cases) == 1) == (limit is None)
        classes = assemble(cases, (300, 400), lambda case: read_classes(case, SPACE))
        assert (classes == expected).all()
    assert whole_of(cases[0]).mask.box is None
    assert found.space.names == ("background", "tumor")


def test_slides_are_read_at_their_finest_level_by_default(data):
    found = scan(data, mpp=None)
    assert "finest level" in found.listing.layout
    assert sum(np.prod(one.shape) for one in found.case_stats) == 2 * MASK.size
    with raises_code(DataError, "slide_too_coarse"):
        scan(data, mpp=0.1)


def test_cases_of_slides_are_stored_with_the_run(data):
    found = scan(data)
    fact = CaseFacts(found.grouping.cases[3], (1, 2))
    row = json.loads(json.dumps(case_to_row(fact, data)))
    stored = parse_cases({"folder": str(data), "cases": [row]}, data / "cases.json")
    assert case_from_row(stored.cases[0], data) == fact


@pytest.mark.parametrize("mpp", [0, -1, 1e6])
def test_impossible_resolutions_are_refused(mpp):
    with raises_code(ConfigError, "value_out_of_range"):
        PreprocessingConfig(slide_mpp=mpp)
