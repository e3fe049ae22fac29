import sys

import pytest

from codes import raises_code
from ushape.errors import DataError, MissingPackageError, PlanError, require_package


@pytest.mark.parametrize("kind", [MissingPackageError, DataError, PlanError])
def test_require_package_names_package_and_extra(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with raises_code(kind, "missing_package") as caught:
        require_package("zarr", "zarr", "x.zarr")
    assert caught.value.message == "x.zarr needs the package zarr, which is not installed."
    assert '"ushape[zarr]"' in caught.value.hint


def test_require_package_imports_the_module():
    assert require_package("json.decoder", "none", "This").JSONDecoder
