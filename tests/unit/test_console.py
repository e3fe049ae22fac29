"""Messages on the console and in the log."""

import logging
import time

import pytest

from ushape.console import LOGGER, Clock, Console, command_started


@pytest.fixture
def records(caplog):
    caplog.set_level(logging.INFO, logger="ushape")
    return caplog


def test_console_prints_and_logs_each_message(capsys, records):
    Console().say("Run: [x]")
    assert capsys.readouterr().out == "Run: [x]\n"
    assert records.messages == ["Run: [x]"]


def test_console_shows_control_characters_as_escapes(capsys, records):
    Console().say("a\x1b[31m\u202eb")
    Console().table(("name",), [("a\x1b[31m",)])
    assert not set(capsys.readouterr().out) & set("\x1b\u202e")
    assert records.messages == [r"a\x1b[31m\u202eb", r"a\x1b[31m"]


def test_quiet_console_only_logs(capsys, records):
    console = Console(quiet=True)
    console.say("50 % done")
    console.table(("a", "b"), [("1", "2")])
    with console.progress("Reading") as on_progress:
        on_progress(1, 2)
    assert not console.is_terminal
    assert capsys.readouterr() == ("", "")
    assert records.messages == ["50 % done", "1; 2"]


def test_level_of_the_logger_silences_the_console(capsys, monkeypatch):
    monkeypatch.setattr(LOGGER, "level", logging.WARNING)
    Console().say("unseen")
    assert capsys.readouterr().out == ""


def test_only_the_first_clock_of_a_command_runs_since_its_start():
    with command_started(time.monotonic() - 1000):
        assert Clock().elapsed_s < 500, "a clock of a part of the command"
        first, second = Clock.of_command(), Clock.of_command()
    assert first.elapsed_s >= 1000
    assert second.elapsed_s < 500, "a training of a cross-validation has its own minutes"
    assert Clock.of_command().elapsed_s < 500, "a call from Python"
