import json

import pytest

from ushape.errors import ConfigError, RunError
from ushape.planning.plan import find_auto, load_plan


def test_find_auto_returns_the_paths_of_open_values():
    values = {"name": "auto", "train": {"epochs": 3, "workers": "auto"}, "augment": "auto"}
    assert find_auto(values) == ["train.workers", "augment"]


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("{", RunError, "unreadable_plan"),
        ("[1]", RunError, "invalid_plan"),
        (json.dumps({"version": 0}), RunError, "unsupported_version"),
        (json.dumps({"recipe": {"augment": "auto"}}), ConfigError, "auto_in_plan"),
        (json.dumps({"version": 1, "colour": 3}), ConfigError, "unknown_key"),
    ],
)
def test_load_plan_refuses_other_files(tmp_path, text, kind, code):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(kind) as error:
        load_plan(tmp_path / "plan.json")
    assert error.value.code == code
