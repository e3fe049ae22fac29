from dataclasses import replace

import numpy as np
import pytest

from codes import raises_code
from ushape.errors import ConfigError
from ushape.transforms.augment import (
    STRENGTHS,
    IntensityConfig,
    change_gamma,
    change_intensity,
    draw_changes,
)

OFF = STRENGTHS["none"].intensity


@pytest.fixture
def image():
    return np.random.default_rng(0).standard_normal((2, 30, 40)).astype(np.float32)


def only(**values):
    chances = {
        f"{name}_probability": 0.0 for name in ("brightness_contrast", "gamma", "noise", "blur")
    }
    return IntensityConfig(**{**chances, **values})


def test_change_intensity_without_changes_is_the_identity(image):
    changed = change_intensity(image.copy(), OFF, np.random.default_rng(0))
    assert (changed == image).all()


def test_change_tone_shifts_by_at_most_the_brightness(image):
    config = only(brightness_contrast_probability=1, brightness=0.3, contrast=0.0)
    shifts = [
        float((change_intensity(image.copy(), config, np.random.default_rng(s)) - image).mean())
        for s in range(200)
    ]
    assert min(shifts) >= -0.3 - 1e-5
    assert max(shifts) <= 0.3 + 1e-5
    assert np.mean(shifts) == pytest.approx(0, abs=0.03)


def test_change_tone_contrast_keeps_the_mean(image):
    config = only(brightness_contrast_probability=1, brightness=0.0, contrast=0.5)
    changed = change_intensity(image.copy(), config, np.random.default_rng(3))
    assert changed.mean() == pytest.approx(image.mean(), abs=1e-5)
    assert 1 / 1.5 <= changed.std() / image.std() <= 1.5


def test_noise_has_the_drawn_strength(image):
    config = only(noise_probability=1, noise=0.5)
    added = change_intensity(image.copy(), config, np.random.default_rng(0)) - image
    assert 0 < added.std() <= 0.55
    assert abs(added.mean()) < 0.05


def test_blur_smooths(image):
    config = only(blur_probability=1, blur_px=2.0)
    changed = change_intensity(image.copy(), config, np.random.default_rng(0))
    assert changed.std() < image.std()


def test_change_gamma_by_hand():
    assert change_gamma(np.array([0, 2, 4], np.float32), 2.0).tolist() == [0, 1, 4]
    assert change_gamma(np.full(3, 7, np.float32), 2.0).tolist() == [7, 7, 7]


def test_change_intensity_is_reproducible(image):
    config = only(
        brightness_contrast_probability=1,
        gamma_probability=1,
        noise_probability=1,
        blur_probability=1,
    )
    first, second = (
        change_intensity(image.copy(), config, np.random.default_rng(5)) for _ in range(2)
    )
    assert (first == second).all()


def test_intensity_config_refuses_impossible_probabilities():
    with raises_code(ConfigError, "value_out_of_range"):
        IntensityConfig(noise_probability=-1)


def test_intensity_config_refuses_negative_amounts():
    with raises_code(ConfigError, "value_out_of_range"):
        IntensityConfig(contrast=-2.0)


def test_change_intensity_always_draws_equally_many_numbers(image):
    states = []
    for config in (OFF, only(noise_probability=1, blur_probability=1, gamma_probability=1)):
        rng = np.random.default_rng(4)
        change_intensity(image.copy(), config, rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


def test_strength_light_changes_less_than_full(image):
    def mean_change(strength):
        config = STRENGTHS[strength].intensity
        changed = [
            change_intensity(image.copy(), config, np.random.default_rng(s)) for s in range(60)
        ]
        return np.mean([np.abs(one - image).mean() for one in changed])

    assert 0 < mean_change("light") < 0.6 * mean_change("full")


def test_speckle_scales_the_difference_from_the_minimum(image):
    config = only(speckle_probability=1, speckle=0.2)
    changed = change_intensity(image.copy(), config, np.random.default_rng(0))
    above = image - image.min()
    factor = (changed - image.min())[above > 0.1] / above[above > 0.1]
    assert 0.8 <= factor.min() < 0.83 < 1.17 < factor.max() <= 1.2001
    assert changed.min() == pytest.approx(image.min())


def test_one_of_draws_at_most_one_change_of_a_group():
    both = only(noise_probability=1, speckle_probability=1)
    grouped = replace(both, one_of=(("noise", "speckle"),))
    generator = np.random.default_rng(0)
    free = [draw_changes(both, generator) & {"noise", "speckle"} for _ in range(50)]
    single = [draw_changes(grouped, generator) & {"noise", "speckle"} for _ in range(50)]
    assert all(len(drawn) == 2 for drawn in free)
    assert all(len(drawn) == 1 for drawn in single)
    assert set.union(*single) == {"noise", "speckle"}
