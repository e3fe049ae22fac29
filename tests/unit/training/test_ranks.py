"""Agreement of processes that train together."""

import threading
from types import SimpleNamespace

import torch

from fakes import FakeTrainer
from ushape.planning.recipe import TrainConfig
from ushape.training.optimizers import Schedule
from ushape.training.pacer import NEVER
from ushape.training.ranks import Agreement


class OtherProcess:
    """Strategy that knows the values of another process."""

    def __init__(self, *values):
        self.values = torch.tensor(values)

    def reduce(self, own, reduce_op):
        assert reduce_op == "max"
        return torch.maximum(own, self.values)


def agree(trainer, other, *, steps=100, is_interrupted=False):
    trainer.strategy = OtherProcess(*other)
    schedule, interrupt = Schedule(TrainConfig(), steps), threading.Event()
    if is_interrupted:
        interrupt.set()
    module = SimpleNamespace(device=torch.device("cpu"))
    Agreement(schedule, interrupt).on_train_batch_end(trainer, module, None, None, 0)
    return schedule.total_steps, trainer.should_stop, interrupt.is_set()


def test_agreement_takes_the_number_of_steps_of_the_first_process():
    assert agree(FakeTrainer(is_global_zero=False), (40, 0, 0, 1)) == (40, False, False)
    assert agree(FakeTrainer(), (0, 0, 0, 0)) == (100, False, False)


def test_agreement_ends_all_processes_if_one_was_interrupted():
    assert agree(FakeTrainer(), (0, 1, 1, 0)) == (100, True, True)
    other = FakeTrainer(is_global_zero=False)
    assert agree(other, (100, 0, 0, 1), is_interrupted=True) == (100, True, True)


def test_agreement_ends_all_processes_if_the_first_has_no_time_left():
    assert agree(FakeTrainer(is_global_zero=False), (100, 1, 0, 1)) == (100, True, False)


def test_agreement_validates_in_the_epochs_of_the_first_process_and_after_an_interrupt():
    other, first = FakeTrainer(is_global_zero=False), FakeTrainer()
    agree(other, (100, 0, 0, NEVER))
    assert other.check_val_every_n_epoch == NEVER
    first.check_val_every_n_epoch = NEVER
    agree(first, (0, 0, 0, 0))
    assert first.check_val_every_n_epoch == NEVER
    agree(first, (0, 1, 1, 0))
    assert first.check_val_every_n_epoch == 1
