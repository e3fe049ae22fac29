from dataclasses import replace

import pytest

from fakes import FakeClock
from ushape import config
from ushape.planning.recipe import Recipe, TrainConfig
from ushape.planning.timing import (
    Format,
    fastest_format,
    formats_of,
    predicted_pixels,
    typical_s,
    with_format,
)

BF16, FP32 = Format("bf16", True), Format("fp32", True)


def measure(durations, limit_s=float("inf")):
    """Return the typical duration of calls on a fake clock, and how many were made."""
    clock, calls = FakeClock(), []

    def run():
        clock.now += durations[min(len(calls), len(durations) - 1)]
        calls.append(clock.now)

    return typical_s(run, limit_s, clock), len(calls)


def test_typical_s_leaves_out_the_first_calls_and_one_disturbed_one():
    value, _ = measure([3.0, 1.0, 0.5, 0.5, 2.055, 0.5, 0.52])
    assert value == pytest.approx(0.5)


def test_typical_s_keeps_the_limit():
    # 1 minute allows 3 s: three calls fit, of which the first is slow.
    value, calls = measure([1.2, 0.8, 0.75, 0.75], limit_s=3.0)
    assert (value, calls) == (pytest.approx(0.75), 3)
    assert measure([20.0], limit_s=3.0) == (pytest.approx(20.0), 1)
    assert measure([0.2], limit_s=0.0) == (pytest.approx(0.2), 1)


@pytest.mark.parametrize(
    ("shapes", "padding", "expected"),
    [
        pytest.param([(100, 120)], "same", 100 * 120, id="one pass"),
        pytest.param([(100, 120), (10, 10)], "same", 100 * 120 + 10 * 10, id="two images"),
        # Two tiles of 160 that overlap by half of 128 cover 256.
        pytest.param([(256, 120)], "same", 2 * 160 * 120, id="overlapping tiles"),
        pytest.param([(100, 120)], "valid", 116 * 136, id="margin"),
    ],
)
def test_predicted_pixels_by_hand(shapes, padding, expected):
    settings = ["network.widths=[4,8]", f"network.padding={padding}", "network.convolutions=2"]
    settings += ["predict.tile_shape=[128,128]", "predict.tiling.overlap_fraction=0.5"]
    recipe = config.override(Recipe(), settings)
    assert predicted_pixels(recipe, shapes) == expected


def test_typical_s_makes_few_calls():
    assert measure([2.0])[1] == 7
    assert measure([0.01])[1] == 14


def fastest(times, limit_s=60.0):
    formats = [Format("bf16", True), Format("fp32", True), Format("bf16", False)][: len(times)]
    asked = []

    def measure(one):
        asked.append(one)
        return times[formats.index(one)]

    chosen, found = fastest_format(formats, measure, limit_s)
    assert list(found) == asked
    return formats.index(chosen), len(asked)


def test_fastest_format_keeps_the_usual_one_unless_another_is_clearly_faster():
    assert fastest([0.10, 0.30, 0.20]) == (0, 3)
    assert fastest([0.10, 0.095, 0.12]) == (0, 3)  # By 5 %, which may be chance.
    assert fastest([0.30, 0.10, 0.12]) == (1, 3)
    assert fastest([0.30, 0.25, 0.10]) == (2, 3)
    assert fastest([0.30, 0.10, 0.05], limit_s=0.0) == (0, 1)  # No time for a second one.


def test_formats_of_a_recipe_are_those_that_it_leaves_open():
    def names(has_bf16=True, **settings):
        settings = [f"{key}={value}" for key, value in settings.items()]
        recipe = config.override(Recipe(), [f"train.{one}" for one in settings])
        return [str(one) for one in formats_of(recipe, has_bf16=has_bf16, device="cpu")]

    assert names() == ["bf16, channels last", "fp32, channels last", "bf16", "fp32"]
    assert names(has_bf16=False) == ["fp32, channels last", "fp32"]
    assert names(precision="fp64") == ["fp64, channels last", "fp64"]
    assert names(precision="fp32", channels_last="false") == ["fp32"]
    recipe = Recipe()
    volume = replace(recipe, network=replace(recipe.network, dims=3))
    instance = replace(recipe, network=replace(recipe.network, norm="instance"))
    first = formats_of(instance, has_bf16=True, device="cuda")[0]
    assert str(first) == "bf16"  # Instance norm on a GPU loses the channels-last layout.
    assert [one.precision for one in formats_of(volume, has_bf16=True, device="cpu")] == [
        "bf16",
        "fp32",
    ]


def test_with_format_sets_precision_and_layout():
    recipe = with_format(Recipe(train=TrainConfig(minutes=2)), Format("fp32", False))
    assert recipe.train == TrainConfig(minutes=2, precision="fp32", channels_last=False)
