import numpy as np
import pytest

from ushape import config
from ushape.data.pixel_weights import PixelWeightConfig, weigh_classes
from ushape.errors import ConfigError
from ushape.planning.recipe import Recipe


def test_weigh_classes_by_hand():
    counts = np.array([600, 300, 100, 0])
    np.testing.assert_array_equal(weigh_classes("none", counts), 1)
    np.testing.assert_allclose(weigh_classes("inverse", counts), [1, 2, 6, 0])
    # 1 / ln(1.62), 1 / ln(1.32) and 1 / ln(1.12) are 2.0729, 3.6018 and 8.8239; their mean over the
    # pixels is 3.2067.
    weights = weigh_classes("inverse_log", counts)
    np.testing.assert_allclose(weights, np.array([2.0729, 3.6018, 8.8239, 0]) / 3.2067, rtol=1e-4)
    np.testing.assert_array_equal(weigh_classes((1, 2, 0, 4), counts), [1, 2, 0, 4])
    with pytest.raises(ConfigError) as error:
        weigh_classes((1, 2), counts)
    assert error.value.code == "class_count_mismatch"


def test_pixel_weights_accept_the_former_name():
    found = config.override(Recipe(), "pixel_weights.balance=true").pixel_weights
    assert found.class_weights == "inverse"
    found = config.override(Recipe(), "pixel_weights={balance: false, border_w0: 2}").pixel_weights
    assert (found.class_weights, found.border_w0) == ("none", 2)
    with pytest.raises(ConfigError) as error:
        PixelWeightConfig(class_weights=(1, -1))
    assert error.value.code == "value_out_of_range"
