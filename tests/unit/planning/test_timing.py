from dataclasses import replace

import pytest

from fakes import FakeClock
from ushape import config
from ushape.planning import timing
from ushape.planning.recipe import Recipe, TrainConfig
from ushape.planning.timing import (
    Format,
    StepTime,
    fastest_format,
    formats_of,
    measure_step,
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


BF16_PLAIN = Format("bf16", False)


def fastest(times, limit_s=60.0, calls=(9, 9, 9, 9), repeated_s=None):
    """Choose among formats with given seconds of a step, of which the first step takes 10 times as
    long because it loads libraries.

    Args:
        repeated_s: Seconds of a step in the usual format once the others have been measured.

    Returns:
        Number of the chosen format, the format of each measurement, and the seconds that are
        reported.
    """
    formats, asked = [BF16, FP32, BF16_PLAIN][: len(times)], []

    def measure(one, seconds):
        asked.append((formats.index(one), seconds))
        index = formats.index(one)
        if len(asked) == 1:
            return StepTime(10 * times[index], 0)
        if index == 0 and len(asked) > 2 and repeated_s is not None:
            return StepTime(repeated_s, 1)
        return StepTime(times[index], calls[index])

    chosen, found = fastest_format(formats, measure, limit_s)
    assert asked[0] == (0, 0.0)
    assert sum(seconds for _, seconds in asked) <= limit_s
    return formats.index(chosen), [index for index, _ in asked[1:]], list(found.values())


def test_fastest_format_keeps_the_usual_one_unless_another_is_clearly_faster():
    assert fastest([0.10, 0.30, 0.20]) == (0, [0, 1, 2], [0.10, 0.30, 0.20])
    assert fastest([0.10, 0.095, 0.12])[0] == 0  # By 5 %, which may be chance.
    assert fastest([0.30, 0.10, 0.12]) == (1, [0, 1, 2, 0], [0.30, 0.10, 0.12])
    assert fastest([0.30, 0.25, 0.10])[0] == 2
    assert fastest([0.30, 0.10, 0.05], limit_s=0.0)[:2] == (0, [0])  # No time for a second one.


def test_format_is_not_decided_by_the_first_step_of_the_process():
    # Both take 0.35 s, but the first step of all takes 3.5 s.
    assert fastest([0.35, 0.35]) == (0, [0, 1], [0.35, 0.35])


def test_fastest_format_measures_the_usual_one_again_before_it_chooses_another():
    # Another program ran while the usual format was measured first.
    assert fastest([0.56, 0.35, 0.36], repeated_s=0.35) == (0, [0, 1, 2, 0], [0.35, 0.35, 0.36])
    assert fastest([0.30, 0.10], repeated_s=0.40) == (1, [0, 1, 0], [0.30, 0.10])


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ((1, 9, 9), (0, [0], [0.30])),  # The others could not be chosen anyway.
        ((2, 1, 1), (0, [0, 1, 2], [0.30, 0.10, 0.20])),
        ((2, 1, 2), (2, [0, 1, 2, 0], [0.30, 0.10, 0.20])),
        ((2, 2, 2), (1, [0, 1, 2, 0], [0.30, 0.10, 0.20])),
    ],
)
def test_format_is_changed_only_if_both_were_timed_in_several_calls(calls, expected):
    assert fastest([0.30, 0.10, 0.20], calls=calls) == expected


def step_of(seconds_per_patch, batch, limit_s, monkeypatch):
    """Measure a step on a fake clock, and return it with the numbers of patches of all calls."""
    clock, patches = FakeClock(), []

    class Step:
        def __init__(self, recipe, channels, space, device):
            self.batch = recipe.train.batch_size

        def run(self):
            clock.now += self.batch * seconds_per_patch
            patches.append(self.batch)

    monkeypatch.setattr(timing, "TrainingStep", Step)
    recipe = config.override(Recipe(), [f"train.batch_size={batch}"])
    step = measure_step(recipe, 1, None, "cpu", limit_s, clock)
    return round(step.seconds, 6), step.calls, patches


def test_measure_step_uses_whole_steps_if_they_fit(monkeypatch):
    # 2 patches take 0.25 s, of which four fit into a quarter of 4 s; then six whole steps fit.
    assert step_of(0.125, 4, 4.0, monkeypatch) == (0.5, 6, [2] * 4 + [4] * 6)


def test_measure_step_repeats_steps_with_fewer_patches_until_they_can_be_compared(monkeypatch):
    # A step of 2 patches takes 0.25 s: one fits into a quarter of 1.2 s, but not two of 4 patches
    # into the rest. Four fit into all of it, the first two of which are the warm-up.
    assert step_of(0.125, 4, 1.2, monkeypatch) == (0.5, 2, [2] * 4)


def test_measure_step_makes_one_call_if_there_is_no_time(monkeypatch):
    assert step_of(0.1, 4, 0.0, monkeypatch) == (0.4, 0, [2])
    assert step_of(0.1, 2, 0.0, monkeypatch) == (0.2, 0, [2])


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
