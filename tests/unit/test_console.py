"""Messages on the console and in the log."""

import logging

import pytest

from ushape.console import LOGGER, Console


@pytest.fixture
def records(caplog):
    caplog.set_level(logging.INFO, logger="ushape")
    return caplog


def test_console_prints_and_logs_each_message(capsys, records):
    Console().say("Run: [x]")
    assert capsys.readouterr().out == "Run: [x]\n"
    assert records.messages == ["Run: [x]"]


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
