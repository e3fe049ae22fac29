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
@pytest.mark.parametrize("shift_s", [-3600, 0.37, 1, 86400])
def test_a_process_still_runs_after_the_clock_was_set(shift_s, monkeypatch):
    started, boot = start_time(os.getpid()), psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + shift_s)
    assert psutil.Process().create_time() != pytest.approx(boot + started, rel=0, abs=0.1)
    assert is_running(os.getpid(), started)
