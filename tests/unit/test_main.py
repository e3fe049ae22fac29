"""Exit codes of the command for signals and closed pipes, in processes of their own."""

import os
import subprocess
import sys

import pytest

from ushape.__main__ import limit_spinning

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")

SCRIPT = """
import os, signal, sys, time
from ushape import __main__, cli
from ushape.interrupts import hint_after_interrupt

def receive():
    with hint_after_interrupt("To continue: repeat."):
        os.kill(os.getpid(), signal.{signal})
        time.sleep(1)

cli.main = receive
__main__.main()
"""


def run(script, **options):
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    ("signal", "code", "name"),
    [("SIGTERM", 143, " by SIGTERM"), ("SIGHUP", 129, " by SIGHUP"), ("SIGINT", 130, "")],
)
def test_main_ends_with_the_code_of_the_signal_and_a_hint(signal, code, name):
    ended = run(SCRIPT.format(signal=signal))
    assert ended.returncode == code
    assert ended.stderr == f"\nStopped{name}. To continue: repeat.\n"


def test_main_ignores_a_hangup_that_nohup_has_disabled():
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    ended = run(ignore + SCRIPT.format(signal="SIGHUP"))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_time_of_a_command_includes_the_import_of_its_function():
    script = """
import sys, time
from ushape import __main__, cli
from ushape.console import Clock

passed_s = 0.0
real = time.monotonic
time.monotonic = lambda: real() + passed_s

def load(name):
    global passed_s
    passed_s += 1000.0
    return lambda *arguments, **options: print(Clock.of_command().elapsed_s >= 1000)

cli.load_function = load
sys.argv = ["ushape", "example", "unused"]
__main__.main()
"""
    assert run(script).stdout == "True\n"


def test_main_ends_quietly_when_the_reader_closes_the_output():
    script = "from ushape import __main__, cli; from ushape.console import Console\n"
    script += "cli.main = lambda: [Console().say('line') for _ in range(100_000)]; __main__.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
    process.stderr.close()


def test_main_prints_letters_that_the_terminal_lacks():
    script = "from ushape import __main__, cli; from ushape.console import Console\n"
    script += "cli.main = lambda: Console().say('3 × 4 ü'); __main__.main()"
    ended = run(script, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "3 \\xd7 4 \\xfc\n"


def test_spinning_is_limited_unless_the_user_sets_how_threads_wait():
    environment: dict[str, str] = {}
    limit_spinning(environment)
    assert int(environment["GOMP_SPINCOUNT"]) > 0
    for own in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}):
        environment = dict(own)
        limit_spinning(environment)
        assert environment == own


def test_a_command_that_outlives_its_terminal_goes_on_without_output(tmp_path):
    done = tmp_path / "done"
    script = f"""
import signal, sys, time
from pathlib import Path

signal.signal(signal.SIGHUP, signal.SIG_IGN)
from ushape import __main__, cli
from ushape.console import Console

def work():
    console = Console()
    assert console.is_terminal
    console.say("first")
    sys.stdin.read()
    with console.progress("Training") as show:
        for step in range(3):
            show(step, 3)
            console.say("next")
    print("next", flush=True)
    print("warning", file=sys.stderr)
    Path({str(done)!r}).touch()

cli.main = work
__main__.main()
"""
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    assert os.read(master, 5) == b"first"
    os.close(master)
    process.stdin.close()
    assert process.wait() == 0
    assert done.exists()
