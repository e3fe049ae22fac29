import sys

import pytest

from codes import raises_code
from ushape.errors import (
    ConfigError,
    DataError,
    MissingPackageError,
    PlanError,
    check_range,
    require_package,
)


@pytest.mark.parametrize("kind", [MissingPackageError, DataError, PlanError])
def test_require_package_names_package_and_extra(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with raises_code(kind, "missing_package") as caught:
        require_package("zarr", "zarr", "x.zarr")
    assert caught.value.message == "x.zarr needs the package zarr, which is not installed."
    assert '"ushape[zarr]"' in caught.value.hint


def test_require_package_imports_the_module():
    assert require_package("json.decoder", "none", "This").JSONDecoder


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1])
def test_check_range_refuses_numbers_that_are_not_finite_or_too_small(value):
    with raises_code(ConfigError, "value_out_of_range"):
        check_range("strength", value, 0)
