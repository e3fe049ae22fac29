from dataclasses import replace

import pytest

from codes import raises_code
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.errors import ConfigError


@pytest.mark.parametrize("target", [(0, 1, 1), (), (1, float("nan"), 1)])
def test_config_refuses_impossible_targets(target):
    with raises_code(ConfigError, "value_out_of_range"):
        PreprocessingConfig(target_spacing_mm=target)


def test_config_refuses_a_target_and_a_shape():
    with raises_code(ConfigError, "settings_conflict"):
        PreprocessingConfig(target_spacing_mm=(1, 1), shape=(64, 64), downscale=1)


def test_relative_lengths_follow_spacing_and_downscale():
    config = PreprocessingConfig(downscale=(1.0, 2.0, 2.0), spacing_mm=(5.0, 0.5, 0.5))
    assert config.relative_lengths(3) == (5, 1, 1)
    assert replace(config, distances="pixels").relative_lengths(3) == (1, 1, 1)
    assert replace(config, spacing_mm=None).relative_lengths(3) == (1, 1, 1)
    nearly = PreprocessingConfig(downscale=1, spacing_mm=(1.02, 1.0, 1.0))
    assert nearly.relative_lengths(3) == (1, 1, 1)


def test_slices_of_volumes_are_not_resampled_along_z():
    config = PreprocessingConfig(downscale=2, slices=3)
    assert config.working_shape((9, 8, 6)) == (9, 4, 3)
    assert config.downscale_factors(3) == (1, 2, 2)
    assert PreprocessingConfig(shape=(4, 4), slices=1).working_shape((9, 8, 6)) == (9, 4, 4)


@pytest.mark.parametrize("slices", [0, 2, -3, 17])
def test_even_or_too_many_slices_are_refused(slices):
    with pytest.raises(ConfigError) as error:
        PreprocessingConfig(slices=slices)
    assert error.value.code == "value_out_of_range"


def test_slices_are_resampled_to_a_common_spacing_within_their_plane():
    config = PreprocessingConfig(downscale=1, slices=3, target_spacing_mm=(5, 2, 2))
    assert config.working_shape((9, 8, 6), (10, 1, 4)) == (9, 4, 12)
    assert config.working_shape((8, 6)) == (8, 6)


def test_limit_must_leave_parts_of_some_size():
    with pytest.raises(ConfigError) as caught:
        PreprocessingConfig(divide_above_px=0)
    assert caught.value.code == "value_out_of_range"
