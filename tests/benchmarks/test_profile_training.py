"""What `benchmarks/speed/profile_training.py` times, and how the seconds of parts add up."""

import importlib
from pathlib import Path

import pytest

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.fixture(scope="module")
def profile():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SPEED)
        yield importlib.import_module("profile_training")


def test_what_is_timed_exists(profile):
    assert importlib.import_module("ushape.api._trainer").fit
    for module, name, _ in profile.FUNCTIONS:
        assert callable(getattr(importlib.import_module(module), name)), (module, name)
    for module, owner, name, _ in profile.METHODS:
        assert callable(getattr(getattr(importlib.import_module(module), owner), name)), owner


def test_each_moment_counts_for_the_innermost_part(profile):
    times = iter([0, 2, 5, 6, 10])
    timer = profile.PartTimer("start", 0.0, clock=lambda: next(times))
    timer.switch("other")  # At 0 s.
    timer.start("steps")  # At 2 s.
    timer.start("loader")  # At 5 s.
    timer.stop()  # At 6 s.
    timer.stop()  # At 10 s.
    assert timer.running == "other"
    assert timer.seconds == {"start": 0, "other": 2, "steps": 3 + 4, "loader": 1}


@pytest.mark.parametrize(
    ("action", "part"),
    [
        ("[Strategy]SingleDeviceStrategy.training_step", "forward"),
        ("[Strategy]SingleDeviceStrategy.backward", "backward"),
        ("[Callback]KeepBest.on_validation_end", "checkpoints"),
        ("[_TrainingEpochLoop].train_dataloader_next", "waiting for the loader"),
        ("an action that is not known", None),
    ],
)
def test_actions_of_lightning_belong_to_parts(profile, action, part):
    assert profile.part_of(action) == part
