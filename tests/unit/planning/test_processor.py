import pytest
import torch

from ushape.planning import processor
from ushape.planning.processor import (
    LoadMeter,
    leave_cores_to_others,
    threads_beside,
    threads_restored,
)


@pytest.mark.parametrize(
    ("others", "cores", "all_cores", "expected"),
    [
        (0.0, 8, 8, 8),
        (0.3, 8, 8, 8),
        (4.0, 8, 8, 4),
        (1.0, 2, 2, 1),
        (9.0, 2, 2, 1),
        (30, 4, 64, 4),
    ],
)
def test_threads_are_as_many_as_cores_are_free(others, cores, all_cores, expected):
    assert threads_beside(others, cores, all_cores) == expected


def meter_of(*readings):
    values = iter(readings)
    return LoadMeter(lambda: next(values))


def test_load_meter_measures_between_two_calls():
    # Others use 3 s of processor time in 2 s, then nothing, then the clock stands still.
    meter = meter_of((10.0, 100.0), (12.0, 103.0), (14.0, 102.9), (14.0, 103.0))
    assert meter.cores_of_others() == 1.5
    assert meter.cores_of_others() == 0.0
    assert meter.cores_of_others() == 0.0


def test_load_meter_reads_this_machine():
    assert LoadMeter().cores_of_others() >= 0.0


@pytest.fixture
def threads():
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_busy_processor_is_stated_with_its_figure(threads, monkeypatch):
    monkeypatch.setattr(processor.os, "cpu_count", lambda: 4)
    text = leave_cores_to_others(4, meter_of((0.0, 0.0), (1.0, 2.5)))
    assert "2.5 of the 4 cores" in text
    assert torch.get_num_threads() == 2
    assert leave_cores_to_others(4, meter_of((0.0, 0.0), (1.0, 0.1))) == ""
    assert torch.get_num_threads() == 4


@threads_restored()
def divide_with_other_threads(one, other):
    torch.set_num_threads(1)
    return one / other


def test_number_of_threads_is_restored_after_an_error(threads):
    torch.set_num_threads(3)
    with pytest.raises(ZeroDivisionError):
        divide_with_other_threads(1, 0)
    assert torch.get_num_threads() == 3
