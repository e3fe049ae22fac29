import pytest

from ushape import config
from ushape.errors import ConfigError
from ushape.planning.recipes import RECIPES, load_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_written_as_a_file_is_the_same_recipe(name, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(config.explain(load_recipe(name)))
    assert load_recipe(str(path)) == load_recipe(name)


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_of_a_recipe_is_explained(name):
    text = config.explain(load_recipe(name))
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if ":" in line and not line.strip().startswith("#") and not line.endswith(":"):
            key = line.strip().split(":")[0]
            obvious = ("activation", "probability", "tiling", "blur_px", "interpolation")
            assert before.strip().startswith("#") or "#" in line or key.endswith(obvious), line


def test_unknown_names_and_keys(tmp_path):
    with pytest.raises(ConfigError, match="No recipe atuo") as caught:
        load_recipe("atuo")
    assert "auto" in caught.value.hint
    path = tmp_path / "mine.yaml"
    path.write_text("train: {batchsize: 3}")
    with pytest.raises(ConfigError, match=r"mine\.yaml: no key train\.batchsize") as caught:
        load_recipe(str(path))
    assert "train.batch_size" in caught.value.hint
