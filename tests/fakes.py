"""A clock and a trainer that the tests set, so that no test depends on speed."""

from dataclasses import dataclass, field
from types import SimpleNamespace


@dataclass
class FakeClock:
    now: float = 1000.0

    def __call__(self):
        return self.now


@dataclass
class FakeTrainer:
    """The attributes of Lightning's Trainer that the callbacks read and set."""

    global_step: int = 0
    current_epoch: int = 0
    should_stop: bool = False
    is_global_zero: bool = True
    check_val_every_n_epoch: int = 1
    optimizers: list = field(
        default_factory=lambda: [SimpleNamespace(param_groups=[{"lr": 0.002}])]
    )
