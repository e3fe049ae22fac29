from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import ushape
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.inference.predictor import Predictor
from ushape.models import build_model
from ushape.planning.run import Run
from ushape.serving.limits import Limits
from ushape.serving.safety import LOOPBACK_NAMES
from ushape.serving.service import opened


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Four small images of cells."""
    folder = tmp_path_factory.mktemp("serving") / "cells"
    write_data_set(folder, 4, SyntheticConfig(size=64, groups=4), seed=3)
    return folder


@pytest.fixture(scope="session")
def run(data, tmp_path_factory) -> Path:
    """A run whose network has random weights."""
    plan = ushape.plan(
        data,
        device="cpu",
        epochs=1,
        settings=["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.batch_size=2"],
        quiet=True,
    )
    run = Run.create(tmp_path_factory.mktemp("runs") / "cells")
    run.save_plan(plan)
    channels = plan.preprocessing.input_channels, plan.preprocessing.space.outputs
    torch.manual_seed(1)
    network = build_model(plan.recipe.network, *channels)
    run.save_weights(network.state_dict(), {"epoch": 1})
    return run.folder


@pytest.fixture(scope="session")
def predictor(run) -> Predictor:
    return Predictor.open(run, "cpu")


@pytest.fixture(scope="session")
def image(data) -> Path:
    return sorted((data / "images").iterdir())[0]


@pytest.fixture
def write_gray(tmp_path):
    """Writes a random gray image."""

    def write(height, width, name="gray.png"):
        path = tmp_path / name
        levels = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
        Image.fromarray(levels).save(path)
        return path

    return write


class Client:
    """Sends requests to an application without a network, all in one event loop."""

    def __init__(self, app, runner):
        self.app, self.runner = app, runner

    def __call__(self, method, path, *, host="localhost", **options):
        async def send():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                return await client.request(method, path, **options)

        return self.runner.run(send())

    def predict(self, *paths, **parameters):
        files = [("image", (path.name, path.read_bytes())) for path in paths]
        return self("POST", "/predict", files=files, params=parameters)


@pytest.fixture
def start(predictor, run, tmp_path_factory, monkeypatch):
    """Starts servers without a network, whose files are in `start.folder`."""
    with asyncio.Runner() as runner, ExitStack() as stack:

        def started(*, model=predictor, token="", hosts=LOOPBACK_NAMES, **limits):
            place = tmp_path_factory.mktemp("uploads")
            monkeypatch.setattr(tempfile, "tempdir", str(place))
            opening = opened(model, [run], Limits(**limits), token=token, hosts=hosts)
            app, gate = stack.enter_context(opening)
            client = Client(app, runner)
            (client.folder,), client.gate = place.iterdir(), gate
            return client

        yield started


@pytest.fixture
def client(start):
    return start()
