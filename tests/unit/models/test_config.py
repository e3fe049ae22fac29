import pytest

from ushape.errors import ConfigError
from ushape.models.config import NetworkConfig


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"widths": (8,)}, "value_out_of_range"),
        ({"block": "residual", "padding": "valid"}, "settings_conflict"),
        ({"widths": (4, 4, 4), "deep_supervision": 3}, "value_out_of_range"),
        ({"dropout": 1.0}, "value_out_of_range"),
        ({"bottleneck_convolutions": 0}, "value_out_of_range"),
        (
            {"widths": (4, 4, 4), "deep_supervision": 1, "padding": "valid"},
            "settings_conflict",
        ),
        ({"widths": (4, 4, 4), "decoder_widths": (4,)}, "value_out_of_range"),
        ({"widths": (4, 4), "decoder_widths": (0,)}, "value_out_of_range"),
        ({"widths": "auto", "decoder_widths": (4,)}, "value_out_of_range"),
        ({"widths": "auto", "decoder_widths": ()}, "value_out_of_range"),
    ],
)
def test_network_config_refuses_impossible_values(values, code):
    with pytest.raises(ConfigError) as caught:
        NetworkConfig(**values)
    assert caught.value.code == code
