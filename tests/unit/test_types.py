from pathlib import Path

import numpy as np
import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.normalization import Normalization
from ushape.types import (
    Case,
    CaseFacts,
    CocoMask,
    Geometry,
    MaskParts,
    Sample,
    select_cases,
    spacing_or_ones,
)


def test_masks_describe_their_files():
    paths = (Path("a.png"), Path("b.png"), Path("c.png"))
    assert str(MaskParts(paths, (1, 2, 3))) == "a.png and 2 more"
    assert str(MaskParts(paths[:1], (1,))) == "a.png"
    assert str(CocoMask(Path("coco.json"), 7)) == "coco.json, image 7"


def test_sample_missing_px_counts_pixels_with_nan_in_any_channel():
    image = np.array([[[np.nan, 1, 2]], [[np.inf, 1, np.nan]]], np.float32)
    sample = Sample(
        case=Case(id="x", image=Path("x")),
        image=image,
        normalization=Normalization(low=(0, 0), high=(1, 1), mean=(0, 0), std=(1, 1)),
        classes=None,
        geometry=Geometry(
            file_shape=(1, 3), box=((0, 1), (0, 3)), padded_shape=(1, 3), working_shape=(1, 3)
        ),
    )
    assert sample.missing_px == 2


def test_spacing_or_ones_checks_the_spacing():
    assert spacing_or_ones(None, 3) == (1.0, 1.0, 1.0)
    assert spacing_or_ones([0.5, 2], 2) == (0.5, 2)
    for spacing in ([1.0], [0.0, 1.0], [float("nan"), 1.0], [float("inf"), 1.0]):
        with raises_code(DataError, "invalid_spacing"):
            spacing_or_ones(spacing, 2)
    assert spacing_or_ones((1, 1, 3), 3) == pytest.approx((1, 1, 3))


def test_select_cases_follows_the_order_of_the_ids():
    facts = [CaseFacts(Case(id=name, image=Path(name), mask=Path(name)), (1, 2)) for name in "abcd"]
    assert [fact.case.id for fact in select_cases(facts, ("d", "a"))] == ["d", "a"]
    assert select_cases(facts, ()) == []
    with pytest.raises(KeyError):
        select_cases(facts, ("e",))
