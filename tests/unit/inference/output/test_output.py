import sys
from pathlib import Path

import pytest

from codes import raises_code
from ushape.errors import ConfigError, MissingPackageError
from ushape.inference.output import OutputConfig


def test_output_config_lists_endings_and_outputs_of_whole_images():
    config = OutputConfig(
        folder=Path("out"),
        table=True,
        probabilities="tif",
        submission=Path("x.csv"),
        order="column",
    )
    assert config.endings == {"probabilities": "_probabilities.tif", "table": "_objects.csv"}
    assert config.only_whole == ["table", "run lengths by column"]
    assert config.has_objects
    assert config.stored_type == "uint8"
    assert OutputConfig(folder=Path("out"), probabilities="npz").stored_type == "float32"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"folder": None}, "missing_output"),
        ({"folder": None, "submission": Path("x.csv"), "overlay": True}, "missing_output"),
        ({"folder": Path("out"), "contours": "svg"}, "unknown_output_format"),
        ({"folder": Path("out"), "probability_type": "uint8"}, "probabilities_not_requested"),
        ({"folder": Path("out"), "columns": "full"}, "table_not_requested"),
        ({"folder": Path("out"), "table": True, "columns": "all"}, "unknown_output_format"),
    ],
)
def test_output_config_refuses_contradictory_settings(settings, code):
    with raises_code(ConfigError, code):
        OutputConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "package", "extra"),
    [
        ({"contours": "imagej"}, "roifile", "imagej"),
        ({"probabilities": "zarr"}, "zarr", "zarr"),
        ({"dicom_seg": True}, "highdicom", "dicom-seg"),
    ],
)
def test_output_config_names_the_extra_of_a_missing_package(settings, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with raises_code(MissingPackageError, "missing_package") as caught:
        OutputConfig(folder=Path("masks"), **settings)
    assert f"ushape[{extra}]" in caught.value.hint
