import numpy as np
import pytest

from ushape.evaluation.picture_files import WEBP_URI, decode_webp
from ushape.evaluation.volume_views import MAX_SLICES, VolumeViews, make_views
from ushape.labels import IGNORE


def views_of(shape=(6, 20, 40), spacing=None, place=(4, 5, 6), **changes):
    """Views of a dark volume with a bright box of one slice, which is annotated and predicted."""
    truth = np.zeros(shape, np.uint8)
    z, y, x = place
    truth[z, y - 2 : y + 3, x - 2 : x + 3] = 1
    values = {"image": 100.0 * truth[None], "truth": truth, "predicted": truth} | changes
    return make_views(**values, spacing=spacing)


def size_of(uri):
    height, width, _ = decode_webp(uri).shape
    return height, width


def test_views_start_at_the_annotated_slice():
    views = views_of()
    assert views.numbers == (1, 2, 3, 4, 5, 6)
    assert views.numbers[views.start] == 5
    assert views.total == 6
    assert decode_webp(views.slices[views.start]).max() > 200
    assert decode_webp(views.slices[0]).max() < 50


def test_views_of_a_volume_without_annotation_start_at_the_prediction():
    views = views_of(truth=np.full((6, 20, 40), IGNORE, np.uint8))
    assert views.numbers[views.start] == 5


@pytest.mark.parametrize("channels", [2, 4])
def test_views_ignore_the_range_of_channels_that_are_not_drawn(channels):
    shown = 3 if channels > 3 else 1
    dark = views_of().slices[0]
    truth = np.zeros((6, 20, 40), np.uint8)
    truth[4, 3:8, 4:9] = 1
    image = np.repeat(100.0 * truth[None], channels, axis=0)
    image[shown:] = 1e6
    views = views_of(image=image)
    assert decode_webp(views.slices[views.start]).max() > 200
    assert np.abs(decode_webp(views.slices[0]).astype(int) - decode_webp(dark)).max() <= 2


def test_projection_leaves_out_values_that_are_not_numbers():
    image = np.full((1, 6, 20, 40), 100.0)
    image[0, 0] = np.nan
    image[0, 1:, :10] = 0
    projection = dict(views_of(image=image).planes)["Maximum projection along z"]
    assert np.median(decode_webp(projection)[70:]) > 200


@pytest.mark.parametrize("place", [0, 1, 50, 98, 99])
def test_views_keep_few_slices_of_many(place):
    views = views_of((100, 9, 9), place=(place, 4, 4))
    assert len(views.slices) in (MAX_SLICES, MAX_SLICES + 1)
    assert views.numbers[0] == 1
    assert views.numbers[-1] == 100
    assert views.numbers[views.start] == place + 1
    assert list(views.numbers) == sorted(set(views.numbers))


def test_planes_have_the_proportions_of_the_spacing():
    # 6 slices of 5 mm are 30 mm; 20 rows and 40 columns of 0.5 mm are 10 and 20 mm.
    views = views_of(spacing=(5.0, 0.5, 0.5))
    titles, planes = zip(*views.planes, strict=True)
    assert titles == ("Maximum projection along z", "Row 4 of 20", "Column 5 of 40")
    projection, row, column = map(size_of, planes)
    assert projection == (128, 256)
    assert row == (256, 171)
    assert column == (256, 85)
    assert size_of(views.slices[0]) == (128, 256)
    assert "spacing of the file" in views.note


def test_flat_planes_are_stretched_and_the_note_says_so():
    views = views_of((2, 40, 40), place=(1, 20, 20))
    assert size_of(views.planes[1][1]) == (64, 256)
    assert "stretched" in views.note
    assert "cubic" in views.note


def test_projection_shows_what_one_slice_contains():
    views = views_of()
    assert decode_webp(views.planes[0][1]).max() > 200


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_views_of_a_constant_volume_are_drawn(value):
    views = views_of(image=np.full((2, 6, 20, 40), value, np.float32))
    assert len(views.slices) == 6


def test_views_are_stored_and_read():
    views = views_of()
    assert VolumeViews.from_json(views.as_json()) == views


@pytest.mark.parametrize(
    "change",
    [
        {"start": 6},
        {"numbers": [1]},
        {"slices": ["https://example.org/a.webp"] * 6},
        {"planes": [["Row", WEBP_URI + "<script>"]]},
    ],
)
def test_damaged_views_are_refused(change):
    with pytest.raises(ValueError):  # noqa: PT011
        VolumeViews.from_json({**views_of().as_json(), **change})
