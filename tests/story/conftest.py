from __future__ import annotations

from pathlib import Path

import pytest

from ushape.data.synthetic import SyntheticConfig, write_data_set


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Options for a network that trains in a second."""
    return (
        "--device=cpu",
        "--set=network.widths=[4,8,8]",
        "--set=sampling.patch_shape=[32,32]",
        "--set=train.batch_size=2",
        "--set=train.steps_per_epoch=6",
    )


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small images of cells from four dishes, masks 0/255."""
    folder = tmp_path_factory.mktemp("data") / "cells"
    write_data_set(folder, 8, SyntheticConfig(size=64, groups=4), seed=3)
    return folder


@pytest.fixture(scope="session")
def trained(cells: Path, tiny, tmp_path_factory: pytest.TempPathFactory, ushape) -> Path:
    """A finished run on the cells."""
    run = tmp_path_factory.mktemp("runs") / "cells"
    ended = ushape("train", cells, "-o", run, "--epochs", 2, *tiny)
    assert ended.code == 0, ended.error
    return run
