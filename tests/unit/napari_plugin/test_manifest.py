"""The file by which napari finds the functions of the plug-in."""

import tomllib
import warnings
from pathlib import Path

import pytest

from ushape import io, napari_plugin

MANIFEST = Path(napari_plugin.__file__).parent / "napari.yaml"


@pytest.fixture(scope="module")
def manifest():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # npe2 uses classes of an older pydantic.
        from npe2 import PluginManifest

        found = PluginManifest.from_file(MANIFEST)
        found.validate_imports()
    return found


def test_manifest_names_functions_that_exist(manifest):
    assert manifest.name == "ushape"
    commands = {one.id: one.python_name for one in manifest.contributions.commands}
    used = [*manifest.contributions.readers, *manifest.contributions.writers]
    used += manifest.contributions.widgets
    assert {one.command for one in used} == set(commands)


def test_manifest_names_formats_that_are_read_and_written(manifest):
    (reader,) = manifest.contributions.readers
    assert {pattern.lstrip("*") for pattern in reader.filename_patterns} <= set(io.FORMATS)
    (writer,) = manifest.contributions.writers
    assert all(map(io.is_writable, writer.filename_extensions))
    assert {str(one) for one in writer.layer_types} == {"labels"}


def test_package_states_where_the_manifest_is():
    root = Path(__file__).parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["napari.manifest"]["ushape"].partition(":")
    assert (module, name) == (napari_plugin.__name__, MANIFEST.name)
