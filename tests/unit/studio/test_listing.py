"""Images and masks of a project."""

import json

import pytest

from ushape.data.discovery import discover
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import RunError
from ushape.planning.run import Run
from ushape.studio.listing import locate
from ushape.types import CaseFacts


@pytest.fixture
def run(tmp_path):
    """A run with the cases of a data set of two pairs; its plan and weights are not read."""
    data = tmp_path / "data"
    write_data_set(data, 2, SyntheticConfig(size=16, groups=2), seed=0)
    own = Run.create(tmp_path / "run")
    for path in (own.plan_path, own.weights_path):
        path.write_text("{}")
    own.save_cases(data, [CaseFacts(case, (1, 2)) for case in discover(data).cases], "")
    return own


def test_data_of_a_run_are_located(run, tmp_path):
    assert locate(run.folder, None, None).data == tmp_path / "data"


def test_data_of_a_run_of_an_earlier_version_are_located(run, tmp_path):
    stored = json.loads(run.cases_path.read_text())
    older = {key: stored[key] for key in ("folder", "digest", "command", "cases")}
    run.cases_path.write_text(json.dumps(older))
    assert locate(run.folder, None, None).data == tmp_path / "data"


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_run_with_damaged_cases_is_refused(run, content):
    run.cases_path.unlink()
    if content is not None:
        run.cases_path.write_text(content)
    with pytest.raises(RunError):
        locate(run.folder, None, None)
