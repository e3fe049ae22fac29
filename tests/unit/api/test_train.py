"""What a training passes on, and what a resumed one loads."""

import pytest

from ushape.api.train import _create_free_folder, resume, train
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import RunError
from ushape.planning.run import Run


@pytest.fixture
def options(tmp_path):
    """Arguments of a training of a second."""
    write_data_set(tmp_path / "data", 6, SyntheticConfig(size=64, groups=3), seed=3)
    return {
        "data": tmp_path / "data",
        "output": tmp_path / "run",
        "epochs": 1,
        "device": "cpu",
        "settings": [
            "network.widths=[4,8]",
            "sampling.patch_shape=[32,32]",
            "train.batch_size=2",
            "train.steps_per_epoch=2",
        ],
        "quiet": True,
    }


def test_train_does_not_load_the_cases_and_splits_that_it_wrote(options, monkeypatch):
    def refuse(run):
        raise AssertionError("loaded")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "load_cases", refuse)
        patched.setattr(Run, "load_splits", refuse)
        first = train(**options)
    assert repr(first).startswith(f"TrainResult(folder={str(options['output'])!r}, summary=")

    again = resume(first.folder, quiet=True)
    assert again.summary == first.summary


def test_train_leaves_no_folder_behind_if_planning_fails(options):
    with pytest.raises(Exception, match="lgg"):
        train(**{**options, "recipe": "lgg-unknown"})
    assert not options["output"].exists()


def test_resume_refuses_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(RunError):
        resume(tmp_path, quiet=True)


def test_free_folder_is_numbered(tmp_path):
    folder = tmp_path / "cells"
    assert _create_free_folder(folder) == folder
    (tmp_path / "cells-2").mkdir()
    assert _create_free_folder(folder) == tmp_path / "cells-3"
    assert (tmp_path / "cells-3").is_dir()
