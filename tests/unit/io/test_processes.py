import os
import subprocess
import sys

import psutil
import pytest

from ushape.io.processes import is_running, start_time


def sleeping():
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def test_a_process_runs_until_it_has_ended():
    process = sleeping()
    started = start_time(process.pid)
    assert is_running(process.pid, started)
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    # Its number is not free before its parent asks how it has ended.
    assert not is_running(process.pid, started)
    assert start_time(process.pid) is None
    process.communicate()
    assert not is_running(process.pid, started)
    assert start_time(process.pid) is None


def test_a_later_process_with_the_same_number_is_another_one():
    started = start_time(os.getpid())
    assert is_running(os.getpid(), started)
    assert not is_running(os.getpid(), started - 1)
    assert not is_running(os.getpid(), None)


@pytest.mark.skipif(not psutil.LINUX, reason="describes Linux")
def test_start_time_does_not_depend_on_the_clock():
    # psutil adds the time of day at which the system was started, which changes with the clock.
    since_boot_s = psutil.Process().create_time() - psutil.boot_time()
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    assert start_time(os.getpid()) == pytest.approx(since_boot_s * ticks_per_s, abs=1)


@pytest.mark.skipif(not psutil.LINUX, reason="describes Linux")
def test_names_of_processes_may_contain_spaces_and_parentheses(tmp_path):
    program = tmp_path / "a) (b 9"
    program.symlink_to(sys.executable)
    process = subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_running(process.pid, start_time(process.pid))
    assert start_time(process.pid) >= start_time(os.getpid())
    process.communicate(b"\n")
