import inspect
from pathlib import Path

import pytest

import ushape
from ushape.api import FUNCTIONS
from ushape.api._urls import ACCEPTED
from ushape.errors import ConfigError


def first_argument(name):
    return next(iter(inspect.signature(getattr(ushape, name)).parameters))


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"fetch", "recipes"}))
@pytest.mark.parametrize("path", ["s3://bucket/x", Path("s3://bucket/x")])
def test_functions_refuse_urls_in_place_of_local_paths(name, path):
    first = first_argument(name)
    if first in ACCEPTED.get(name, ()):
        return
    required = {
        key
        for key, one in inspect.signature(getattr(ushape, name)).parameters.items()
        if one.default is one.empty and one.kind is one.KEYWORD_ONLY
    }
    arguments = [path, "images"] if name == "predict" else [path]
    with pytest.raises(ConfigError) as error:
        getattr(ushape, name)(*arguments, **dict.fromkeys(required, "x"))
    assert error.value.code == "remote_unsupported"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("train", {"data": "data", "output": "s3://bucket/run"}),
        ("train", {"data": "data", "plan": Path("gs://bucket/plan.json")}),
        ("predict", {"run": ["run", "s3://bucket/run"], "images": "x"}),
        ("predict", {"run": "run", "images": "x", "output": "y", "rle": "s3://bucket/rle.csv"}),
        ("check", {"data": "data", "output": "https://host/report.html"}),
    ],
)
def test_other_paths_are_refused_as_well(name, options):
    with pytest.raises(ConfigError) as error:
        getattr(ushape, name)(**options)
    assert error.value.code == "remote_unsupported"


def test_names_of_parameters_that_accept_urls_exist():
    for name, accepted in ACCEPTED.items():
        assert accepted <= inspect.signature(getattr(ushape, name)).parameters.keys()
