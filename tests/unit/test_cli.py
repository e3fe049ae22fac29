"""The command line and the Python functions have the same names, parameters and help texts."""

import inspect
import re

import pytest
import typer
from typer.testing import CliRunner

import ushape
from ushape import cli
from ushape.api import FUNCTIONS
from ushape.api.predict import FilesBesideMask
from ushape.distributed.job_config import JobOptions
from ushape.errors import RunError, TemporaryError, UshapeError
from ushape.inference.output import OutputConfig

NAMES = [name for name in FUNCTIONS if name != "load"]

ONLY_IN_PYTHON = {"fetch": {"client"}}

ONLY_IN_COMMAND = {key: {"others"} for key in ("export_model", "predict", "predict_zarr")}

COMMANDS = {command.callback.__name__: command for command in cli.app.registered_commands}


def parameters_of(function, left_out=()):
    """Parameters by name, with those that a class of keywords describes.

    The keywords of `FilesBesideMask` have the defaults of `OutputConfig`, and those of `JobOptions`
    have none.
    """
    found = dict(inspect.signature(function).parameters)
    if found.pop("beside", None):
        defaults = inspect.signature(OutputConfig).parameters
        found |= {name: defaults[name] for name in FilesBesideMask.__annotations__}
    if found.pop("jobs", None):
        for name in JobOptions.__annotations__:
            found[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
    return {name: parameter for name, parameter in found.items() if name not in left_out}


def plain(default):
    """A default value in the form of the command line."""
    if default in (None, (), inspect.Parameter.empty):
        return None
    return str(default)


def test_every_public_function_is_a_command():
    assert sorted(COMMANDS) == sorted(NAMES)
    shown = CliRunner().invoke(cli.app, ["--help"]).output
    for name in NAMES:
        assert f"  {cli.COMMANDS.get(name, name.replace('_', '-'))} " in shown


@pytest.mark.parametrize("name", NAMES)
def test_command_has_the_parameters_and_defaults_of_the_function(name):
    function = parameters_of(getattr(ushape, name), ONLY_IN_PYTHON.get(name, ()))
    command = parameters_of(COMMANDS[name].callback, ONLY_IN_COMMAND.get(name, ()))
    assert sorted(command) == sorted(function)
    for key, parameter in function.items():
        assert plain(command[key].default) == plain(parameter.default), key
        is_argument = command[key].kind is not inspect.Parameter.KEYWORD_ONLY
        assert is_argument == (parameter.kind is not inspect.Parameter.KEYWORD_ONLY), key


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_help_text_in_the_docstring(name):
    summary, docs = cli.read_docstring(name)
    assert len(summary.split("\n")[0]) <= 60
    assert docs.keys() == parameters_of(getattr(ushape, name)).keys()
    command = cli.COMMANDS.get(name, name.replace("_", "-"))
    shown = " ".join(CliRunner().invoke(cli.app, [command, "--help"]).output.split())
    for key in docs.keys() - ONLY_IN_PYTHON.get(name, set()):
        assert "".join(docs[key].split()) in shown.replace(" ", ""), key


def test_read_docstring_agrees_with_the_imported_function():
    for name in NAMES:
        doc = inspect.getdoc(getattr(ushape, name))
        summary, docs = cli.read_docstring(name)
        assert doc.startswith(summary)
        for key, text in docs.items():
            if key in {**FilesBesideMask.__annotations__, **JobOptions.__annotations__}:
                continue
            assert text in re.sub(r"\s+", " ", doc)


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("weights mask.png -o w.png", "weight-map mask.png -o w.png"),
        ("lr data --min 1e-6", "find-lr data --min 1e-6"),
        ("train --resume run", "resume run"),
        ("train --resume=run --quiet", "resume run --quiet"),
        ("train data --folds 5 -o out", "cross-validate data --folds 5 -o out"),
        ("train data --folds=5", "cross-validate data --folds=5"),
        ("train data", "train data"),
        ("resume run", "resume run"),
        ("", ""),
    ],
)
def test_former_spellings_are_replaced(former, current):
    assert cli.with_current_names(former.split()) == current.split()


def choices():
    """Commands with their arguments and an option that takes one of several words."""
    for name, shown in typer.main.get_command(cli.app).commands.items():
        needed = ["x"] * sum(one.param_type_name == "argument" for one in shown.params)
        function = shown.callback.__annotations__
        for one in shown.params:
            if "Literal" in str(function.get(one.name)) and one.param_type_name == "option":
                yield name, needed, one.opts[-1]


def test_there_are_options_with_several_words():
    assert {"predict", "export"} <= {name for name, *_ in choices()}


@pytest.mark.parametrize(
    ("name", "needed", "option"), [pytest.param(*one, id=f"{one[0]} {one[2]}") for one in choices()]
)
def test_words_that_an_option_does_not_know_are_refused_in_plain_words(name, needed, option):
    refused = CliRunner().invoke(cli.app, [name, *needed, option, "foo"])
    assert refused.exit_code == 2
    assert re.search(r"Invalid value for '.*': 'foo' is not one of", refused.output)


def test_numbers_that_an_option_cannot_read_are_refused_in_plain_words():
    refused = CliRunner().invoke(cli.app, ["studio", "x", "--port", "foo"])
    assert "Invalid value for '--port': it should be a valid integer" in refused.output


def test_former_python_names_are_aliases():
    assert ushape.weights is ushape.weight_map
    assert ushape.lr is ushape.find_learning_rate
    assert "weights" not in dir(ushape)


def test_main_names_a_missing_working_directory(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 2
    assert "current folder no longer exists" in capsys.readouterr().err


def test_main_names_a_link_that_leads_back_to_itself(tmp_path, monkeypatch, capsys):
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setattr(cli, "app", lambda arguments: (tmp_path / "loop").read_bytes())
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 2
    assert str(tmp_path / "loop") in capsys.readouterr().err


@pytest.mark.parametrize("value", ["full", "basic"])
def test_a_value_of_table_is_refused_with_the_option_that_takes_it(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UshapeError) as caught:
        cli.with_current_names(["predict", "run", "images", "--table", value])
    assert f"--table --columns {value}" in caught.value.hint
    usual = ["predict", "run", "images", "--table", "--columns", value]
    assert cli.with_current_names(usual) == usual
    (tmp_path / value).mkdir()
    existing = ["predict", "run", "--table", value]
    assert cli.with_current_names(existing) == existing


@pytest.mark.parametrize(
    ("error_class", "exit_code"), [(UshapeError, 2), (RunError, 2), (TemporaryError, 75)]
)
def test_exit_code_states_whether_the_same_command_may_succeed_later(error_class, exit_code):
    with pytest.raises(SystemExit) as ended:
        cli.print_error(error_class("The server does not answer.", hint="Wait."))
    assert ended.value.code == exit_code
