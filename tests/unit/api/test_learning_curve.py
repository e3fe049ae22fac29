from ushape.api.learning_curve import Design, _recipe_of_points
from ushape.planning.hardware import inspect_machine
from ushape.planning.recipe import Recipe, TrainConfig


def test_points_have_the_threads_of_the_design():
    recipe = Recipe(train=TrainConfig(epochs=2))
    design = {"groups": (1, 2, 4), "splits": (), "noun": "images", "minutes": None}
    stored = Design(**design, steps_per_epoch=5, threads=3)
    assert _recipe_of_points(recipe, stored).train.threads == 3
    older = Design(**design, steps_per_epoch=5)
    assert _recipe_of_points(recipe, older).train.threads == inspect_machine("cpu").cores
