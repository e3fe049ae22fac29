import numpy as np
import pytest

from ushape.errors import ConfigError, PlanError
from ushape.training.lr_finder import LRFinderConfig, LRFinderResult

RATES = LRFinderConfig(lowest=1e-6, highest=10, steps=71).rates


def curve(losses):
    return LRFinderResult(rates=tuple(RATES), losses=tuple(losses), has_diverged=False)


def test_lr_finder_rates_increase_by_a_constant_factor():
    assert RATES[0] == pytest.approx(1e-6)
    assert RATES[-1] == pytest.approx(10)
    np.testing.assert_allclose(RATES[1:] / RATES[:-1], 10**0.1)


@pytest.mark.parametrize("seed", range(5))
def test_suggest_finds_the_steepest_descent_in_noise(seed):
    """A loss that falls around a rate of 0.001 and rises again beyond 0.3."""
    where = np.log10(RATES)
    losses = 1 - 0.6 / (1 + np.exp(-4 * (where + 3))) + np.exp(4 * (where - 0.3))
    losses += np.random.default_rng(seed).normal(0, 0.03, len(losses))
    assert -3.7 < np.log10(curve(losses).suggest()) < -2.3


def test_smoothed_losses_by_hand():
    found = curve([1.0, 2.0, *[0.0] * 69]).smoothed
    # 0.3 / 0.3, then (0.7 * 0.3 + 0.3 * 2) / (1 - 0.49).
    assert found[:2] == pytest.approx([1, 0.81 / 0.51])


def test_suggest_refuses_a_loss_that_only_rises():
    with pytest.raises(PlanError) as caught:
        curve(np.linspace(1, 2, 71)).suggest()
    assert caught.value.code == "no_learning_rate"


@pytest.mark.parametrize(
    "limits",
    [
        {"lowest": 1, "highest": 0.1},
        {"highest": float("inf")},
        {"lowest": 0},
        {"steps": 3},
        {"divergence": 1},
    ],
)
def test_lr_finder_config_refuses_impossible_values(limits):
    with pytest.raises(ConfigError) as caught:
        LRFinderConfig(**limits)
    assert caught.value.code == "value_out_of_range"
