from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from reports import MadeCase, make_cases, make_report
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.reports.report import write_report


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
    """A finished run on the cells, with a threshold of 0.5."""
    run = tmp_path_factory.mktemp("runs") / "cells"
    ended = ushape("train", cells, "-o", run, "--epochs", 2, *tiny, "--set", "predict.tune=false")
    assert ended.code == 0, ended.error
    return run


@pytest.fixture(scope="session")
def cases() -> list[MadeCase]:
    """Made-up cases of all four kinds."""
    return make_cases()


@pytest.fixture(scope="session")
def page_file(cases, tmp_path_factory) -> Path:
    """Their report."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, make_report(cases))
    return path


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium. While it runs, other tests in this process cannot use asyncio."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("These tests need Chromium: sudo apt-get install chromium")
    quiet = "no-sandbox disable-gpu disable-quic no-first-run disable-sync "
    quiet += "disable-background-networking disable-component-update"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=[f"--{name}" for name in quiet.split()]
        )
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """Opens a page, and in the end asserts that it is no wider than the screen, loaded nothing
    and complained of nothing.

    A complaint that is named must have come.
    """

    @contextmanager
    def open_page(path, hash_text="", complaint=None, **options):
        context = browser.new_context(**options)
        page = context.new_page()
        page.set_default_timeout(10_000)
        requests, complaints = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri() + hash_text)
        yield page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        context.close()
        assert [text for text in complaints if not complaint or complaint not in text] == []
        assert bool(complaints) == bool(complaint)
        assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]

    return open_page
