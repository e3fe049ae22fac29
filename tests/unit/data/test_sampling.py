from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ushape.data.intensities import thin_out
from ushape.data.pixel_weights import PixelWeightConfig, PixelWeights
from ushape.data.sampling import (
    CaseDraw,
    PatchDataset,
    SamplingConfig,
    build_draw,
    draw_center,
    foreground_probabilities,
    group_foreground_probabilities,
)
from ushape.datasets.synthetic import SyntheticConfig, make_cells, write_data_set
from ushape.errors import ConfigError, DataError
from ushape.labels import IGNORE, LabelSpace
from ushape.normalization import Normalization
from ushape.transforms.augment import STRENGTHS, AugmentConfig
from ushape.transforms.augment.geometry import GeometryConfig
from ushape.types import Case, Geometry, Sample

SPACE = LabelSpace(values=(0, 255), names=("background", "foreground"))
STRONG = AugmentConfig(
    geometry=GeometryConfig(flip_axes=(0, 1), rotation_probability=1, elastic_probability=1)
)


def test_case_draw_reaches_the_foreground_share_among_mostly_empty_cases():
    # 2 of 40 cases hold foreground: 5 % by chance, planned 60 % + 40 % x 5 % = 62 %.
    class_pixels = np.full((40, 2), [100, 0])
    class_pixels[[3, 17], 1] = 5
    draw = CaseDraw(class_pixels, 0.6)
    rng = np.random.default_rng(0)
    picks = [draw.draw(rng) for _ in range(4000)]

    share = np.mean([pick.case_index in (3, 17) for pick in picks])
    assert share == pytest.approx(0.62, abs=0.03)
    assert {pick.case_index for pick in picks if pick.class_index} == {3, 17}


def test_case_draw_centers_on_rare_and_common_classes_equally_often():
    class_pixels = np.array([[10, 900, 0]] * 9 + [[10, 0, 1]])
    draw = CaseDraw(class_pixels, 1.0)
    rng = np.random.default_rng(1)
    classes = [draw.draw(rng).class_index for _ in range(2000)]
    assert np.mean(np.array(classes) == 2) == pytest.approx(0.5, abs=0.04)


def test_case_draw_centers_on_classes_by_their_shares():
    # The second class is not sought, the fourth occurs in no case: 1 : 3 for the others.
    class_pixels = np.array([[10, 900, 5, 5, 0]] * 3)
    draw = CaseDraw(class_pixels, 1.0, class_ratios=(0.2, 0, 0.6, 5))
    rng = np.random.default_rng(1)
    classes = np.array([draw.draw(rng).class_index for _ in range(2000)])
    assert set(classes) == {1, 3}
    assert np.mean(classes == 3) == pytest.approx(0.75, abs=0.03)
    with pytest.raises(ConfigError) as error:
        CaseDraw(class_pixels, 1.0, class_ratios=(1, 2))
    assert error.value.code == "class_count_mismatch"


def test_case_draw_without_any_foreground_draws_every_case():
    draw = CaseDraw(np.array([[5, 0], [5, 0], [5, 0]]), 0.9)
    rng = np.random.default_rng(2)
    assert {draw.draw(rng).case_index for _ in range(100)} == {0, 1, 2}


def test_draw_center_of_a_foreground_patch_contains_the_class():
    classes = np.zeros((40, 30), np.uint8)
    classes[39, 29] = 1  # In the corner: the patch is pushed back into the image.
    for seed in range(20):
        y, x = draw_center(classes, 1, (8, 8), np.random.default_rng(seed))
        corner = int(y - 4), int(x - 4)
        assert classes[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8].any()
        assert corner == (32, 22)


def test_draw_center_stays_inside_and_reaches_every_corner():
    classes = np.zeros((10, 12), np.uint8)
    rng = np.random.default_rng(3)
    corners = {draw_center(classes, None, (8, 8), rng) for _ in range(500)}
    assert corners == {(y + 4.0, x + 4.0) for y in range(3) for x in range(5)}


def test_draw_center_of_an_image_smaller_than_the_patch_is_its_middle():
    assert draw_center(np.zeros((6, 20), np.uint8), None, (8, 20), np.random.default_rng(0)) == (
        3.0,
        10.0,
    )


@pytest.mark.parametrize(
    "values", [{"foreground_fraction": 1.5}, {"class_ratios": (0, 0)}, {"class_ratios": (1, -1)}]
)
def test_sampling_config_refuses_impossible_shares(values):
    with pytest.raises(ConfigError) as error:
        SamplingConfig(**values)
    assert error.value.code == "value_out_of_range"


def test_foreground_probabilities_by_hand():
    # Mean 2, sum 8: (w + 0.2) / 8.8.
    found = foreground_probabilities(np.array([0, 0, 2, 6]))
    np.testing.assert_allclose(found, np.array([0.2, 0.2, 2.2, 6.2]) / 8.8)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(foreground_probabilities(np.zeros(4)), 0.25)


def test_group_foreground_probabilities_are_uniform_over_groups():
    foreground, groups = np.array([0, 3, 0, 0, 0]), ["b", "b", "a", "a", "a"]
    found = group_foreground_probabilities(foreground, groups)
    # Group b: mean 1.5, sum 3: 0.15 / 3.3 and 3.15 / 3.3 of one half; a has no foreground.
    np.testing.assert_allclose(found, [0.15 / 6.6, 3.15 / 6.6, 1 / 6, 1 / 6, 1 / 6])


@pytest.mark.parametrize("name", ["uniform", "foreground_weighted", "group_foreground_weighted"])
def test_build_draw_follows_the_foreground_probabilities(name):
    class_pixels = np.array([[9, 0], [5, 4], [1, 8], [9, 0], [8, 1]])
    groups = ["a", "a", "b", "b", "b"]
    expected = {
        "uniform": np.full(5, 0.2),
        "foreground_weighted": foreground_probabilities(class_pixels[:, 1]),
        "group_foreground_weighted": group_foreground_probabilities(class_pixels[:, 1], groups),
    }[name]
    draw = build_draw(SamplingConfig(strategy=name), class_pixels, groups)
    rng = np.random.default_rng(1)
    picks = [draw.draw(rng) for _ in range(20_000)]
    assert {pick.class_index for pick in picks} == {None}
    counts = np.bincount([pick.case_index for pick in picks], minlength=5)
    np.testing.assert_allclose(counts / 20_000, expected, atol=0.012)


def make_dataset(augment=STRONG, margin=0, seed=0, patch_shape=(24, 32)):
    rng = np.random.default_rng(0)
    samples = []
    for index in range(3):
        image = rng.integers(256, size=(2, 40, 44), dtype=np.uint8)
        classes = (image[0] > 200).astype(np.uint8)
        classes[0, 0] = IGNORE
        samples.append(
            Sample(
                case=Case(id=str(index), image=Path("x")),
                image=image,
                normalization=Normalization.measure(thin_out(image)),
                classes=classes,
                geometry=Geometry(
                    file_shape=(40, 44),
                    box=((0, 40), (0, 44)),
                    padded_shape=(40, 44),
                    working_shape=(40, 44),
                ),
            )
        )
    class_pixels = np.array([[9, 9]] * 3)
    draw, weights = CaseDraw(class_pixels, 0.5), PixelWeights(PixelWeightConfig(), class_pixels)
    return PatchDataset(
        samples, SPACE, draw, weights, augment, patch_shape=patch_shape, margin=margin, seed=seed
    )


def test_patch_depends_only_on_seed_epoch_and_index():
    first, second = make_dataset(), make_dataset()
    _ = first[0, 7], first[5, 1]
    for name, value in second[3, 2].items():
        assert torch.equal(value, first[3, 2][name])
    assert not torch.equal(first[3, 2]["image"], first[3, 3]["image"])
    assert not torch.equal(first[3, 2]["image"], first[4, 2]["image"])
    assert not torch.equal(first[3, 2]["image"], make_dataset(seed=1)[3, 2]["image"])


def test_patch_of_another_size_is_cut_within_the_image():
    for key in ((0, 1), (0, 1, (16, 8))):
        patch = make_dataset(margin=2)[key]
        height, width = key[2] if len(key) == 3 else (24, 32)
        assert patch["image"].shape == (2, height, width)
        assert patch["target"].shape == patch["weight"].shape == (1, height - 4, width - 4)


def test_patch_target_is_smaller_by_the_margin_of_the_network():
    plain = STRENGTHS["none"]
    whole = make_dataset(plain)
    wider = make_dataset(plain, margin=4, patch_shape=(32, 40))
    corners = set()
    for index in range(30):
        patch, with_margin = whole[0, index], wider[0, index]
        assert patch["image"].shape == (2, 24, 32)
        assert with_margin["image"].shape == (2, 32, 40)
        assert patch["target"].shape == patch["weight"].shape == (1, 24, 32)
        assert torch.equal(with_margin["target"], patch["target"])
        assert torch.equal(with_margin["image"][:, 4:-4, 4:-4], patch["image"])
        corners.add(bool((patch["weight"] == 0).any()))
    assert corners == {True, False}  # The image's very corner, which is ignored, is reached.


def test_patch_without_augmentation_cuts_image_and_mask_alike():
    """Pixels above the threshold are those of the mask: image and mask are cut alike."""
    dataset = make_dataset(STRENGTHS["none"])
    for index in range(10):
        patch = dataset[0, index]
        bright = patch["image"][0][patch["target"][0] == 1]
        dark = patch["image"][0][(patch["target"][0] == 0) & (patch["weight"][0] == 1)]
        assert bright.min() > dark.max()


def test_patch_of_a_volume_shows_a_slice_with_its_neighbors():
    volume = np.arange(5, dtype=np.float32)[None, :, None, None] * np.ones((1, 5, 16, 12))
    classes = np.zeros((5, 16, 12), np.uint8)
    classes[3] = 1
    sample = Sample(
        case=Case(id="0", image=Path("x")),
        image=volume.astype(np.float32),
        normalization=Normalization(low=(0,), high=(9,), mean=(0,), std=(1,)),
        classes=classes,
        geometry=Geometry(
            file_shape=(5, 16, 12),
            box=((0, 5), (0, 16), (0, 12)),
            padded_shape=(5, 16, 12),
            working_shape=(5, 16, 12),
        ),
    )
    pixels = np.array([[4 * 192, 192]])
    weights = PixelWeights(PixelWeightConfig(), pixels)

    def patches(fraction):
        draw = CaseDraw(pixels, fraction)
        dataset = PatchDataset(
            [sample], SPACE, draw, weights, STRENGTHS["none"], patch_shape=(8, 8), slices=3
        )
        return [dataset[0, index] for index in range(40)]

    for patch in patches(1.0):  # The slice with the foreground, between 2 and 4.
        assert patch["image"].shape == (3, 8, 8)
        assert patch["image"][:, 0, 0].tolist() == [2, 3, 4]
        assert patch["target"].flatten(1).any(1)[SPACE.foreground].all()
    seen = {tuple(patch["image"][:, 0, 0].tolist()) for patch in patches(0.0)}
    assert seen == {(0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 4)}


def test_patch_with_objects_measures_their_distance_after_the_warp():
    dataset = make_dataset()
    objects = np.zeros((40, 44), np.int32)
    objects[5:20, 5:40], objects[20:35, 5:40] = 1, 2  # They touch.
    dataset.samples = [
        replace(one, objects=objects, classes=(objects > 0).astype(np.uint8))
        for one in dataset.samples
    ]
    dataset.space, dataset.max_distance_px = replace(SPACE, has_distance=True), 4.0
    for index in range(5):
        target = dataset[0, index]["target"]
        assert target.shape == (2, 24, 32)
        assert ((target[1] > 0) == (target[0] > 0)).all()
        assert target[1].max() <= 1
    assert ((target[1] > 0) & (target[1] < 1)).any()


def test_generated_cells_are_seeded_and_the_mask_is_exact(tmp_path):
    config = SyntheticConfig(size=96)
    draws = [
        make_cells(config, np.random.default_rng(0), np.random.default_rng(1)) for _ in range(2)
    ]
    for one, other in zip(*draws, strict=True):
        assert (one == other).all()
    image, mask = draws[0]
    assert image.shape == mask.shape == (96, 96)
    assert set(np.unique(mask)) == {0, 255}
    assert 0.1 < (mask > 0).mean() < 0.9

    write_data_set(tmp_path / "set", 5, SyntheticConfig(size=32, groups=2), seed=0)
    names = sorted(path.name for path in (tmp_path / "set" / "images").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "set" / "masks").iterdir())
    assert names == [f"dish0{d}_0{n}.png" for d, n in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2))]
    with pytest.raises(DataError, match="is not empty"):
        write_data_set(tmp_path / "set", 1, config, seed=0)


def test_draw_center_of_a_random_patch_shows_an_annotated_pixel():
    classes = np.full((200, 300), IGNORE, np.uint8)
    classes[20, 30] = 0
    rng = np.random.default_rng(5)
    corners = set()
    for _ in range(300):
        y, x = (int(place - 8) for place in draw_center(classes, None, (16, 16), rng))
        assert (classes[y : y + 16, x : x + 16] != IGNORE).any()
        corners.add((y, x))
    assert len(corners) > 100  # The annotated pixel is anywhere in the patch.


def test_draw_center_of_an_image_without_annotation_is_random():
    classes = np.full((10, 12), IGNORE, np.uint8)
    rng = np.random.default_rng(3)
    assert len({draw_center(classes, None, (8, 8), rng) for _ in range(200)}) > 4


def test_case_draw_leaves_out_cases_without_annotation():
    draw = CaseDraw(np.array([[0, 0], [5, 0], [0, 0], [3, 2]]), 0.3)
    rng = np.random.default_rng(2)
    assert {draw.draw(rng).case_index for _ in range(200)} == {1, 3}
