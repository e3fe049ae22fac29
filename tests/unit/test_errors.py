import errno
import subprocess
import sys

import pytest

from codes import raises_code
from ushape.errors import (
    MINIMUM_ADDRESS_BYTES,
    ConfigError,
    DataError,
    MissingPackageError,
    PlanError,
    check_range,
    explained,
    plain_finding,
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


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "system_error"),
        (MemoryError(), "memory_exhausted"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory_exhausted"),
        (ImportError("lib.so: failed to map segment from shared object"), "memory_exhausted"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory_exhausted"),
    ],
)
def test_errors_of_the_system_are_explained(error, code):
    assert explained(error).code == code
    assert explained(error).hint


def test_mistakes_in_the_code_are_not_explained():
    assert explained(ValueError("a mistake")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit of Linux")
def test_low_limit_of_virtual_memory_is_refused_before_libraries_are_loaded():
    limit = MINIMUM_ADDRESS_BYTES - 1
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}));"
        "import sys; sys.argv = ['ushape', 'train', 'data'];"
        "from ushape.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "virtual memory is 1.5 GB" in found.stderr
    assert "Hint: " in found.stderr


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Value error, two cases have the same id", "two cases have the same id"),
        ("Assertion failed, it is odd", "it is odd"),
        ("Input should be a valid integer", "it should be a valid integer"),
        ("String should have at least 1 character", "String should have at least 1 character"),
    ],
)
def test_plain_finding_leaves_out_the_words_of_the_library(message, shown):
    assert plain_finding(message) == shown


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_hint_on_a_full_disk_names_the_command_that_goes_on(number, tmp_path):
    run = tmp_path / "my run"
    (run / "report").mkdir(parents=True)
    (run / "plan.json").write_text("{}")
    inside = explained(OSError(number, "Full", str(run / "report" / "page.html")))
    assert f"ushape resume '{run}'" in inside.hint
    for filename in (None, str(tmp_path / "elsewhere.png")):
        assert "ushape resume RUN" in explained(OSError(number, "Full", filename)).hint
    assert "resume" not in explained(OSError(errno.EACCES, "No", str(run / "plan.json"))).hint
