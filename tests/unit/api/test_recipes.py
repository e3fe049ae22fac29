from ushape.api.recipes import recipes
from ushape.config import parse
from ushape.planning.recipe import Recipe
from ushape.planning.recipes import RECIPES, load_recipe


def test_recipes_lists_one_line_for_each_name():
    lines = recipes().splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES)


def test_recipes_shows_a_file_that_can_be_read_again():
    shown, whole = recipes("lgg-buda"), recipes("lgg-buda", all_keys=True)
    assert parse(Recipe, shown, source="") == parse(Recipe, whole, source="")
    assert parse(Recipe, shown, source="") == load_recipe("lgg-buda")
    assert len(shown) < len(whole)
