import ctypes
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from codes import raises_code
from ushape.errors import ConfigError, PlanError
from ushape.planning import hardware
from ushape.planning.hardware import inspect_machine, memory_format, reuse_freed_memory
from ushape.planning.loading import loading_processes


@pytest.mark.parametrize(
    ("capabilities", "platform", "expected"),
    [
        ({"avx2": True}, "linux", False),
        ({"avx512_bf16": True}, "win32", True),
        ({"avx512_bf16": False, "amx_bf16": True}, "linux", True),
        ({"neon": True, "bf16": True}, "linux", True),
        ({"neon": True, "bf16": True}, "darwin", False),
    ],
)
def test_inspect_machine_asks_torch_for_bf16(capabilities, platform, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(hardware, "sys", SimpleNamespace(platform=platform))
    assert inspect_machine("cpu").has_bf16 is expected


@pytest.mark.parametrize("flags", ["fma avx512_bf16", "fma"])
def test_inspect_machine_reads_the_processor_flags_with_an_older_torch(flags, monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(hardware, "Path", lambda name: SimpleNamespace(read_text=lambda: flags))
    assert hardware._cpu_has_bf16() is ("bf16" in flags)


def test_inspect_machine_needs_no_files_of_linux(monkeypatch):
    def missing(name):
        raise FileNotFoundError(name)

    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(hardware, "Path", missing)
    monkeypatch.delattr(hardware.os, "sched_getaffinity", raising=False)
    machine = inspect_machine("cpu")
    assert not machine.has_bf16
    assert machine.name
    assert machine.cores >= 1
    assert machine.main_memory_bytes > 0


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_reuse_freed_memory_does_nothing_without_linux(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert reuse_freed_memory() is False


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_reuse_freed_memory_does_nothing_without_glibc(error, monkeypatch):
    def fail(name):
        raise error(name)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert reuse_freed_memory() is False


def test_inspect_machine_respects_the_limits_of_a_container(monkeypatch):
    monkeypatch.setattr(hardware, "allowed_cores", lambda: list(range(64)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(hardware, "core_limit", lambda: None)
    assert inspect_machine("cpu").cores == 64
    monkeypatch.setattr(hardware, "core_limit", lambda: 2)
    monkeypatch.setattr(hardware, "memory_limit_bytes", lambda: 4096)
    machine = inspect_machine("cpu")
    assert (machine.cores, machine.main_memory_bytes, machine.memory_bytes) == (2, 4096, 4096)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # OMP_NUM_THREADS.
    assert inspect_machine("cpu").cores == 1


def test_trainings_that_run_together_share_cores_and_memory(monkeypatch):
    monkeypatch.setattr(hardware, "allowed_cores", lambda: list(range(64)))
    monkeypatch.setattr(hardware, "core_limit", lambda: None)
    monkeypatch.setattr(hardware, "memory_limit_bytes", lambda: 800)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)  # OMP_NUM_THREADS of the user.
    alone = inspect_machine("cpu")
    monkeypatch.setenv("USHAPE_PROCESSES", "8")
    machine = inspect_machine("cpu")
    assert (alone.cores, alone.main_memory_bytes) == (64, 800)
    assert (machine.cores, machine.main_memory_bytes, machine.memory_bytes) == (8, 100, 100)
    assert loading_processes(replace(alone, device="cuda")) == 16
    assert 8 * loading_processes(replace(machine, device="cuda")) <= 64
    monkeypatch.setenv("USHAPE_PROCESSES", "100")
    assert inspect_machine("cpu").cores == 1


def test_memory_format_is_channels_last_only_in_2d():
    assert memory_format(2, channels_last=True) == torch.channels_last
    assert memory_format(3, channels_last=True) == torch.contiguous_format
    assert memory_format(2, channels_last=False) == torch.contiguous_format


def test_inspect_machine_describes_this_machine_and_refuses_unknown_devices():
    machine = inspect_machine("cpu")
    assert machine.device == "cpu"
    assert machine.cores >= 1
    assert machine.main_memory_bytes > 1 << 30
    with pytest.raises(PlanError) as caught:
        inspect_machine("abacus")
    assert caught.value.code == "device_not_available"


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("abacus", ["--device auto"]),
        ("cuda,mps", ["--device auto"]),
        ("cpu:1", ["--device cpu."]),
        ("cuda:1", ["--device cuda and", "CUDA_VISIBLE_DEVICES=1 "]),
        ("cuda:0,cuda:2", ["train DATA --device cuda --devices 2", "CUDA_VISIBLE_DEVICES=0,2 "]),
        ("cuda,cuda", ["train DATA --device cuda --devices 2."]),
        ("cpu, cpu,cpu", ["train DATA --device cpu --devices 3."]),
    ],
)
@pytest.mark.parametrize("has_gpus", [False, True])
def test_inspect_machine_says_how_to_choose_numbered_or_several_devices(
    device, expected, has_gpus, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpus)
    with raises_code(PlanError, "device_not_available") as caught:
        inspect_machine(device)
    if "cuda" in device and not has_gpus:
        expected = ["--device auto"]  # The other hints would lead to the same error.
    assert [text for text in expected if text not in caught.value.hint] == []


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_inspect_machine_names_auto_if_a_type_is_missing(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with raises_code(PlanError, "device_not_available") as caught:
        inspect_machine(device)
    assert "--device auto" in caught.value.hint


def test_inspect_machine_refuses_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with raises_code(PlanError, "device_not_available"):
        inspect_machine("cuda", 3)


def test_inspect_machine_refuses_no_devices():
    with raises_code(ConfigError, "value_out_of_range"):
        inspect_machine("cpu", 0)


def test_inspect_machine_allows_several_processes_on_a_cpu():
    assert inspect_machine("cpu", 3).devices == 3
