from pathlib import Path

import pytest

from ushape.data.grouping.stated import stated_keys
from ushape.errors import ConfigError, DataError
from ushape.types import Case


def cases(*ids, **columns):
    return [
        Case(id=name, image=Path(name), metadata={k: v[n] for k, v in columns.items()})
        for n, name in enumerate(ids)
    ]


@pytest.mark.parametrize(
    ("option", "keys"),
    [
        (r"^[^_]+", ["p1", "p1", "p2"]),
        (r"_(\d)", ["1", "2", "1"]),
        (r"p(\d)_(\d)", ["1", "1", "2"]),
        ("none", ["p1_1", "p1_2", "p2_1"]),
    ],
)
def test_stated_groups_of_an_expression(option, keys):
    assert stated_keys(cases("p1_1", "p1_2", "p2_1"), option)[0] == keys


def test_stated_groups_of_a_column():
    own = cases("a", "b", scanner=["x", "y"])
    assert stated_keys(own, "Scanner")[0] == ["x", "y"]
    with pytest.raises(DataError) as error:
        stated_keys(cases("a", "b", scanner=["x", ""]), "scanner")
    assert error.value.code == "incomplete_column"


@pytest.mark.parametrize("option", ["patient", r"^(p1)", r"(x?)_"])
def test_stated_groups_must_match_every_case(option):
    with pytest.raises(DataError) as error:
        stated_keys(cases("p1_1", "p2_1", scanner=["x", "y"]), option)
    assert error.value.code == "group_pattern_unmatched"
    assert "scanner" in error.value.message


def test_stated_groups_of_an_invalid_expression_are_refused():
    with pytest.raises(ConfigError) as error:
        stated_keys(cases("a"), "(a")
    assert error.value.code == "invalid_group_pattern"
