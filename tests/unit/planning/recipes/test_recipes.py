from dataclasses import replace

import pytest

from ushape import config
from ushape.api.recipes import recipes
from ushape.errors import ConfigError
from ushape.planning.recipe import RARE_KEYS, Recipe
from ushape.planning.recipes import RECIPES, load_recipe
from ushape.transforms.augment import STRENGTHS


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("all_keys", [False, True])
def test_recipe_written_as_a_file_is_the_same_recipe(name, all_keys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(recipes(name, all_keys=all_keys))
    assert load_recipe(str(path)) == load_recipe(name)


def test_recipes_prints_rare_keys_only_with_all_or_where_they_differ():
    assert "channels_last" not in recipes("auto")
    assert "channels_last" in recipes("auto", all_keys=True)
    assert "decoder_convolutions: 1" in recipes("carvana-original")
    assert "minutes" in recipes("auto")


def test_rare_keys_exist():
    complete = replace(Recipe(), augment=STRENGTHS["none"])
    values = config.to_dict(complete)
    for path in RARE_KEYS:
        section = values
        for key in path.split(".")[:-1]:
            section = section[key]
        assert path.split(".")[-1] in section, path


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_explain_every_setting(name):
    text = config.explain(load_recipe(name))
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if ":" in line and not line.strip().startswith("#") and not line.endswith(":"):
            key = line.strip().split(":")[0]
            obvious = ("activation", "probability", "tiling", "blur_px", "interpolation")
            assert before.strip().startswith("#") or "#" in line or key.endswith(obvious), line


def test_load_recipe_names_similar_recipes_and_keys(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_recipe("atuo")
    assert caught.value.code == "unknown_recipe"
    assert "auto" in caught.value.hint
    path = tmp_path / "mine.yaml"
    path.write_text("train: {batchsize: 3}")
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    assert caught.value.code == "unknown_key"
    assert "train.batch_size" in caught.value.hint
