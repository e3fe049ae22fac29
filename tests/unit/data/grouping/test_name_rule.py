"""Rules by which names give groups."""

import re

import pytest

from ushape.data.grouping.name_rule import find_name_rule


def grouped(*names):
    """Groups by the part of each name before a bar, which is removed."""
    return {name.replace("|", ""): name.partition("|")[0].rpartition("/")[2] for name in names}


@pytest.mark.parametrize(
    ("names", "other", "group"),
    [
        (("anna|_1_a", "anna|_2_a", "bert|_1_a"), "in/carl_3_b", "carl"),
        (("p_1|_a", "p_1|_b", "p_2|_a"), "p_7_z", "p_7"),
        (("car-1|-1", "car-1|-2", "car-2|-1"), "car-9-5", "car-9"),
        (("train/anna|01", "train/anna|02", "test/bert|01"), "carl17", "carl"),
    ],
)
def test_rule_gives_the_groups_of_further_images(names, other, group):
    rule = find_name_rule(grouped(*names))
    assert rule is not None
    assert re.search(rule, other)[1] == group


def test_no_rule_fits_groups_that_do_not_follow_the_names():
    assert find_name_rule({"a_1": "x", "a_2": "y", "b_1": "y"}) is None
    assert find_name_rule({"a_1": "a_1", "a_2": "a_2"}) is None
    assert find_name_rule({"a_1": "a", "a_2": "a"}) is None
