import pytest

from codes import raises_code
from ushape.console import Console
from ushape.errors import ConfigError
from ushape.export.graph import ExportOptions
from ushape.export.standalone import export_standalone


@pytest.mark.parametrize(
    "options", [ExportOptions(output="mask"), ExportOptions(fixed_intensity=True)]
)
def test_export_standalone_refuses_options_of_graphs(options, tmp_path):
    with raises_code(ConfigError, "option_without_effect"):
        export_standalone([], tmp_path, options, Console(quiet=True))
