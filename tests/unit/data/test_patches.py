from pathlib import Path

import numpy as np
import pytest
import torch

from ushape.data.patches import PatchDataset
from ushape.data.pixel_weights import PixelWeightConfig, PixelWeights
from ushape.data.preprocessing import thin_out
from ushape.data.sampling import CaseDraw
from ushape.datasets.synthetic import SyntheticConfig, make_cells, write_data_set
from ushape.errors import DataError
from ushape.labels import IGNORE, LabelSpace
from ushape.normalization import Normalization
from ushape.transforms.augment import STRENGTHS, AugmentConfig
from ushape.transforms.augment.geometry import GeometryConfig
from ushape.types import Case, Geometry, Sample

SPACE = LabelSpace(values=(0, 255), names=("background", "foreground"))
STRONG = AugmentConfig(
    geometry=GeometryConfig(flip_axes=(0, 1), rotation_probability=1, elastic_probability=1)
)


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


def test_a_patch_depends_on_seed_epoch_and_index_alone():
    first, second = make_dataset(), make_dataset()
    _ = first[0, 7], first[5, 1]
    for name, value in second[3, 2].items():
        assert torch.equal(value, first[3, 2][name])
    assert not torch.equal(first[3, 2]["image"], first[3, 3]["image"])
    assert not torch.equal(first[3, 2]["image"], first[4, 2]["image"])
    assert not torch.equal(first[3, 2]["image"], make_dataset(seed=1)[3, 2]["image"])


def test_shapes_and_a_network_that_loses_a_margin():
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


def test_without_augmentation_the_target_is_the_image_s():
    """Pixels above the threshold are those of the mask: image and mask are cut alike."""
    dataset = make_dataset(STRENGTHS["none"])
    for index in range(10):
        patch = dataset[0, index]
        bright = patch["image"][0][patch["target"][0] == 1]
        dark = patch["image"][0][(patch["target"][0] == 0) & (patch["weight"][0] == 1)]
        assert bright.min() > dark.max()


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
