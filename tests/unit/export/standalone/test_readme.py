from types import SimpleNamespace

import pytest

from probabilities import THREE
from ushape.export.graph import ExportOptions
from ushape.export.standalone.comparison import Comparison
from ushape.export.standalone.readme import MASK_KINDS, describe
from ushape.planning.run import Run
from ushape.types import MaskEncoding

COMPARED = Comparison(images=3, pixels=900, are_generated=True, differ_from_default=2)


def readme(tmp_path, channels=1, joins=False, kind="values", **options):
    """The README of a run that was neither split nor evaluated."""
    plan = SimpleNamespace(
        preprocessing=SimpleNamespace(space=THREE, channels=channels),
        encoding=MaskEncoding(kind=kind),
    )
    predictor = SimpleNamespace(plan=plan, joins_objects=joins)
    return describe([Run(tmp_path / "cells")], predictor, COMPARED, ExportOptions(**options))


def test_readme_names_classes_and_comparison(tmp_path):
    text = readme(tmp_path)
    assert "# Segmentation model: cells" in text
    assert "| nucleus | 2 |" in text
    assert "2 of 900 pixels differ" in text
    assert "has not been evaluated" in text
    assert "_instances" not in text


def test_readme_mentions_numbers_of_objects_if_they_are_written(tmp_path):
    assert "NAME_instances.tif" in readme(tmp_path, joins=True)


def test_readme_states_the_license_only_if_it_is_known(tmp_path):
    assert "license is MIT. Authors: Ada" in readme(tmp_path, license="MIT", authors=("Ada",))
    assert "Ask those who trained the network" in readme(tmp_path)


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_readme_describes_every_encoding(tmp_path, kind, channels):
    text = readme(tmp_path, channels, kind=kind)
    assert "`.png` files with" in text
    assert "{" not in text
