import pytest

from codes import raises_code
from ushape.errors import ConfigError
from ushape.labels import LabelConfig


def test_label_config_refuses_contradictory_settings():
    with raises_code(ConfigError, "settings_conflict"):
        LabelConfig(threshold=1, values=(0, 1))
    with raises_code(ConfigError, "too_few_classes"):
        LabelConfig(values=(3,))
    with raises_code(ConfigError, "settings_conflict"):
        LabelConfig(values=(0, 255), ignore=255)


def test_label_config_refuses_regions_with_a_threshold():
    with raises_code(ConfigError, "settings_conflict"):
        LabelConfig(regions={"a": (1,)}, threshold=1)


def test_label_config_refuses_the_distance_of_overlapping_regions():
    for values in ({"objects": "distance", "regions": {"a": (1,)}}, {"max_distance_px": 0.5}):
        with pytest.raises(ConfigError) as error:
            LabelConfig(**values)
        assert error.value.code in ("settings_conflict", "value_out_of_range")
