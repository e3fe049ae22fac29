from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch

from ushape.planning import processor
from ushape.planning.hardware import Machine
from ushape.planning.processor import (
    LoadMeter,
    choose_threads,
    describe_sharing,
    keep_to_usable_cores,
    leave_cores_to_others,
    measure_free_cores,
    threads_beside,
    threads_restored,
    use_threads,
    with_load,
)
from ushape.planning.recipe import TrainConfig

MACHINE = Machine(
    device="cpu",
    name="test",
    cores=4,
    memory_bytes=1,
    main_memory_bytes=1,
    has_bf16=False,
)
STEPS, MINUTES = TrainConfig(epochs=2), TrainConfig(minutes=2)


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Restores the number of threads, which no environment variable limits."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with threads_restored():
        yield


@pytest.mark.parametrize(
    ("free", "most", "expected"),
    [(8.0, 8, 8), (7.7, 8, 8), (4.0, 8, 4), (1.0, 2, 1), (0.0, 2, 1), (34.0, 4, 4)],
)
def test_threads_are_as_many_as_cores_are_free(free, most, expected):
    assert threads_beside(free, most) == expected


def meter_of(*readings, cores=4):
    values = iter(readings)
    return LoadMeter(lambda: next(values), cores)


def test_load_meter_measures_between_two_calls():
    # Others use 3 s of processor time in 2 s, then nothing, then the clock stands still.
    meter = meter_of((10.0, 100.0), (12.0, 103.0), (14.0, 102.9), (14.0, 103.0))
    assert meter.free_cores() == 2.5
    assert meter.free_cores() == 4.0
    assert meter.free_cores() == 4.0


def test_load_meter_reads_this_machine():
    assert LoadMeter().free_cores() >= 0.0


def times(user, idle, **more):
    """Return the times of a core as psutil does."""
    fields = {"user": user, "idle": idle, "iowait": 1.0, **more}
    return namedtuple("Times", fields)(**fields)


def test_load_is_that_of_the_cores_that_the_process_may_use(monkeypatch):
    cores = [times(50.0, 9.0), times(7.0, 9.0, guest=2.0), times(90.0, 9.0)]
    monkeypatch.setattr(processor.psutil, "cpu_times", lambda percpu: cores)
    monkeypatch.setattr(processor, "allowed_cores", lambda: [1])
    monkeypatch.setattr(processor, "_own_seconds", lambda: 3.0)
    assert processor._read_seconds()[1] == 4.0  # A guest's time is part of the user's.
    monkeypatch.setattr(processor, "allowed_cores", lambda: [64])  # Numbers of the host.
    assert processor._read_seconds()[1] == 50.0 + 7.0 + 90.0 - 3.0


@pytest.mark.parametrize("error", [psutil.AccessDenied(), PermissionError(), RuntimeError()])
def test_processor_seems_free_where_the_system_hides_its_load(monkeypatch, error):
    def refuse(percpu):
        raise error

    monkeypatch.setattr(processor.psutil, "cpu_times", refuse)
    meter = LoadMeter(cores=4)
    assert meter.free_cores() == 4.0


def test_children_that_have_ended_are_not_other_programs(monkeypatch):
    ended = SimpleNamespace(user=1.0, system=2.0, children_user=10.0, children_system=20.0)
    alive = SimpleNamespace(user=100.0, system=200.0)  # As on macOS and Windows.
    child = SimpleNamespace(cpu_times=lambda: alive)
    process = SimpleNamespace(cpu_times=lambda: ended, children=lambda recursive: [child])
    monkeypatch.setattr(processor.psutil, "Process", lambda: process)
    assert processor._own_seconds() == 333.0


def test_short_burst_does_not_count():
    # Others use all 4 cores in the second and third of five measurements.
    readings = [(0.0, 0.0), (1.0, 0.0), (2.0, 4.0), (3.0, 8.0), (4.0, 8.0), (5.0, 8.0)]
    slept = []
    assert measure_free_cores(5, meter_of(*readings), slept.append) == 4.0
    assert len(slept) == 5
    assert measure_free_cores(3, meter_of(*readings), slept.append) == 0.0


def test_number_of_threads_is_that_of_the_free_cores():
    assert choose_threads(STEPS, MACHINE) == 4
    assert choose_threads(STEPS, replace(MACHINE, free_cores=1.2)) == 1
    assert choose_threads(replace(STEPS, threads=3), replace(MACHINE, free_cores=1.2)) == 3
    # With a time limit, it is the largest number.
    assert choose_threads(MINUTES, replace(MACHINE, free_cores=1.2)) == 4


def test_load_is_measured_only_if_it_decides(monkeypatch):
    monkeypatch.setattr(processor, "measure_free_cores", lambda samples=5: 0.1 * samples)
    assert with_load(MACHINE, STEPS).free_cores == 0.5
    assert with_load(MACHINE, MINUTES).free_cores == 0.1
    assert with_load(MACHINE, replace(STEPS, threads=2)).free_cores is None
    assert with_load(replace(MACHINE, device="cuda"), STEPS).free_cores is None
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert with_load(MACHINE, STEPS).free_cores is None


def test_threads_are_set_and_explained():
    assert use_threads(STEPS, MACHINE) == ""
    assert torch.get_num_threads() == 4
    busy = replace(MACHINE, free_cores=0.4)
    assert use_threads(STEPS, busy) == ""  # The plan explains it.
    assert torch.get_num_threads() == 1
    assert "only 0.4" in use_threads(MINUTES, busy)
    assert torch.get_num_threads() == 1
    assert "1 of 4 threads" in describe_sharing(STEPS, busy)
    for train in (MINUTES, replace(STEPS, threads=2)):
        assert describe_sharing(train, busy) == ""
    assert describe_sharing(STEPS, MACHINE) == ""
    assert "1 of 3 threads" in use_threads(replace(MINUTES, threads=3), busy)


def test_stated_number_of_threads_is_used_also_if_it_does_not_fit():
    assert "train.threads" in use_threads(replace(STEPS, threads=2), MACHINE)
    assert torch.get_num_threads() == 2
    assert "slow" in use_threads(replace(STEPS, threads=6), MACHINE)
    assert torch.get_num_threads() == 6
    assert use_threads(replace(STEPS, threads=4), MACHINE) == ""
    assert use_threads(replace(STEPS, threads=6), replace(MACHINE, device="cuda")) == ""


def test_prediction_leaves_cores_to_others_unless_the_user_states_the_threads(monkeypatch):
    free, machine = iter([0.2, 3.8]), MACHINE
    monkeypatch.setattr(processor, "inspect_machine", lambda device: machine)
    monkeypatch.setattr(processor, "usable_cores", lambda: 4)
    monkeypatch.setattr(processor, "measure_free_cores", lambda: next(free))
    torch.set_num_threads(4)
    note = leave_cores_to_others("cpu")
    assert "1 of 4 threads" in note
    assert note.endswith("To use another number, set OMP_NUM_THREADS.")
    assert torch.get_num_threads() == 1
    torch.set_num_threads(4)
    assert leave_cores_to_others("cpu") == ""
    assert torch.get_num_threads() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert leave_cores_to_others("cpu") == ""  # Nothing is measured.
    monkeypatch.delenv("OMP_NUM_THREADS")
    for other in ({"device": "cuda"}, {"cores": 1}):
        machine = replace(MACHINE, **other)
        assert leave_cores_to_others("auto") == ""


def test_threads_are_at_most_as_many_as_usable_cores(monkeypatch):
    monkeypatch.setattr(processor, "usable_cores", lambda: 2)
    monkeypatch.setattr(processor, "inspect_machine", lambda device: replace(MACHINE, cores=1))
    torch.set_num_threads(4)
    assert leave_cores_to_others("cpu") == ""
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    keep_to_usable_cores()
    assert torch.get_num_threads() == 1
    torch.set_num_threads(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    keep_to_usable_cores()
    assert torch.get_num_threads() == 4


@threads_restored()
def divide_with_other_threads(one, other):
    torch.set_num_threads(1)
    return one / other


def test_number_of_threads_is_restored_after_an_error():
    torch.set_num_threads(3)
    with pytest.raises(ZeroDivisionError):
        divide_with_other_threads(1, 0)
    assert torch.get_num_threads() == 3
