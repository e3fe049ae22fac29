import os
import subprocess
import sys
import threading

import pytest

from ushape.interrupts import at_first_interrupt


# In a process of its own: a signal in a process that has quantized with NNCF crashes it.
def run_script(script):
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_at_first_interrupt_acts_once_and_the_second_one_raises():
    run_script("""
import signal
from ushape.interrupts import at_first_interrupt

signal.signal(signal.SIGINT, signal.default_int_handler)
calls = []
with at_first_interrupt(lambda: calls.append(1)):
    signal.raise_signal(signal.SIGINT)
    assert calls == [1]
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        calls.append("interrupted")
assert calls == [1, "interrupted"]
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
""")


def test_at_first_interrupt_runs_the_block_in_other_threads():
    found = []

    def work():
        with at_first_interrupt(lambda: None):
            found.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1]


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupts_are_held_off_until_the_end_of_the_block(name):
    run_script(f"""
import os, signal
from ushape.interrupts import interrupts_held_off

signal.signal(signal.{name}, signal.default_int_handler)
seen = []
try:
    with interrupts_held_off():
        os.kill(os.getpid(), signal.{name})
        seen.append("end of the block")
except KeyboardInterrupt:
    seen.append("interrupted")
assert seen == ["end of the block", "interrupted"]
assert signal.getsignal(signal.{name}) is signal.default_int_handler
""")
