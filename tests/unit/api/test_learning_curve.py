from ushape.api.learning_curve import Design, _recipe_of_points, learning_curve
from ushape.planning.hardware import inspect_machine
from ushape.planning.recipe import Recipe, TrainConfig


def test_points_have_the_threads_of_the_design():
    recipe = Recipe(train=TrainConfig(epochs=2))
    design = {"groups": (1, 2, 4), "splits": (), "noun": "images", "minutes": None}
    stored = Design(**design, steps_per_epoch=5, threads=3)
    assert _recipe_of_points(recipe, stored).train.threads == 3
    older = Design(**design, steps_per_epoch=5)
    assert _recipe_of_points(recipe, older).train.threads == inspect_machine("cpu").cores


def test_other_processes_of_srun_leave_the_curve_to_the_first_one(tmp_path, monkeypatch):
    for name, value in (("STEP_NUM_TASKS", "2"), ("PROCID", "1"), ("LOCALID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    folder = tmp_path / "curve"
    assert learning_curve(tmp_path, output=folder, epochs=1, quiet=True) is None
    assert not folder.exists()
