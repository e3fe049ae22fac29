from dataclasses import dataclass, field
from typing import Literal

import pytest
import yaml

from ushape import config
from ushape.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    """An inner section."""

    size: int | Literal["auto"] = "auto"
    """Side in pixels."""

    terms: dict[str, float] = field(default_factory=lambda: {"dice": 1.0})
    """Weights."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """An outer config."""

    rate: float = 0.5
    """Share of things."""

    shape: tuple[int, ...] | None = None
    """A shape."""

    inner: Inner | Literal["auto"] = field(default_factory=Inner)


def test_override_changes_one_value_only():
    changed = config.override(Outer(), ["inner.size=8", "shape=[4, 5]"])
    assert changed == Outer(shape=(4, 5), inner=Inner(size=8))


def test_override_replaces_a_mapping_or_adds_a_key_to_it():
    assert config.override(Outer(), ["inner.terms={focal: 2}"]).inner.terms == {"focal": 2.0}
    both = config.override(Outer(), ["inner.terms.focal=2"]).inner.terms
    assert both == {"dice": 1.0, "focal": 2.0}


def test_override_names_keys_similar_to_an_unknown_one():
    with pytest.raises(ConfigError) as caught:
        config.override(Outer(), ["inner.sise=8"])
    assert caught.value.code == "unknown_key"
    assert "inner.sise" in caught.value.message
    assert "inner.size" in caught.value.hint


@pytest.mark.parametrize("setting", ["inner.size=large", "rate=fast"])
def test_override_names_the_key_of_an_impossible_value(setting):
    with pytest.raises(ConfigError) as caught:
        config.override(Outer(), [setting])
    assert caught.value.code == "invalid_value"
    assert setting.partition("=")[0] in caught.value.message


@pytest.mark.parametrize(
    ("setting", "code"), [("rate", "invalid_setting"), ("shape=[1, 2", "invalid_yaml")]
)
def test_override_refuses_settings_without_value_or_with_broken_yaml(setting, code):
    with pytest.raises(ConfigError) as caught:
        config.override(Outer(), [setting])
    assert caught.value.code == code


def test_explain_leaves_hidden_keys_out_only_if_they_have_their_default():
    hidden = ("rate", "inner.size")
    assert yaml.safe_load(config.explain(Outer(), hidden)).keys() == {"shape", "inner"}
    text = config.explain(Outer(inner=Inner(size=3)), hidden)
    assert yaml.safe_load(text)["inner"] == {"size": 3, "terms": {"dice": 1.0}}


def test_explain_contains_field_docs_and_can_be_parsed():
    mine = Outer(rate=0.25, shape=(3, 4), inner=Inner(size=7))
    text = config.explain(mine)
    assert "# Share of things." in text
    assert "# An inner section." in text
    assert config.parse(Outer, text, source="mine.yaml") == mine
    assert yaml.safe_load(text)["inner"]["size"] == 7


def test_from_dict_inverts_to_dict():
    mine = Outer(inner="auto")
    assert config.from_dict(Outer, config.to_dict(mine), source="test") == mine
