from pathlib import Path

import pytest

from ushape.api.report import _short_names, compare, report
from ushape.errors import ConfigError, RunError


def test_short_names_are_the_shortest_ends_that_differ():
    assert _short_names([Path("/runs/a"), Path("/runs/b")]) == ["a", "b"]
    assert _short_names([Path("/x/run"), Path("/y/run")]) == ["x/run", "y/run"]
    with pytest.raises(RunError) as error:
        _short_names([Path("/x/run"), Path("/x/run")])
    assert error.value.code == "run_given_twice"


def test_report_and_compare_need_runs():
    for call in (report, lambda: compare("run")):
        with pytest.raises(ConfigError) as error:
            call()
        assert error.value.code == "missing_argument"
