import re

import numpy as np
import pytest
from PIL import Image

from ushape.data.checks import check_dataset
from ushape.data.scan import scan_dataset
from ushape.data.splits import SplitConfig
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.labels import LabelConfig
from ushape.reports.data_check import write_check_page


@pytest.fixture
def page(tmp_path):
    """Text of the page about a small data set in which one mask has another size."""
    data = tmp_path / "cells & more"
    write_data_set(data, 6, SyntheticConfig(size=48, groups=6), seed=0)
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(data / "masks/dish02_01.png")
    stats = scan_dataset(data, None, LabelConfig(), workers=1)
    write_check_page(tmp_path / "check.html", check_dataset(stats, split=SplitConfig(), seed=0))
    return (tmp_path / "check.html").read_text()


def test_write_check_page_shows_findings_first_and_their_reason(page):
    assert "Check of cells &amp; more" in page
    cases = list(dict.fromkeys(re.findall(r"dish\d\d_01", page)))
    assert cases[0] == "dish02_01"
    assert len(cases) == 6
    assert "image 48 × 48, mask 40 × 48" in page
    assert page.count("data:image/webp") == 5
