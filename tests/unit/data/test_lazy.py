"""Patches that are cut out of files."""

import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr

from codes import raises_code
from ushape.data.cache import SampleStore
from ushape.data.discovery import discover
from ushape.data.lazy import LazyImage, LazySamples
from ushape.data.parts import divide_large_images
from ushape.data.pixel_weights import PixelWeightConfig, PixelWeights
from ushape.data.preprocessing import Preprocessing
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.data.sampling import CaseDraw, PatchDataset
from ushape.errors import DataError
from ushape.labels import LabelSpace
from ushape.transforms.augment import AugmentConfig

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))
VOLUME = np.random.default_rng(0).integers(0, 900, (20, 24, 32)).astype(np.uint16)
MASK = (VOLUME > 800).astype(np.uint8)


def save(path, array):
    if path.suffix == ".zarr":
        options = {"shape": array.shape, "chunks": (8, 16, 16), "dtype": array.dtype}
        zarr.create_array(str(path), zarr_format=2, **options)[...] = array
    elif path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array, tile=(16, 16), compression="zlib")
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))


def store_of(folder, suffix, limit, *, keep, image=VOLUME, by_slice=False, **changes):
    for kind, array in (("images", image), ("masks", MASK)):
        (folder / kind).mkdir(exist_ok=True)
        for name in "ab":
            if not (folder / kind / f"{name}{suffix}").exists():
                save(folder / kind / f"{name}{suffix}", array)
    config = PreprocessingConfig(**{"downscale": 1, "intensity": "image", **changes})
    preprocessing = Preprocessing(
        channels=1, config=config, space=SPACE, normalization=None, by_slice=by_slice
    )
    cases = divide_large_images(discover(folder), limit).cases
    store = SampleStore(cases, preprocessing, keep=keep)
    store.load_all(1)
    return store


def patches(samples, slices=None):
    pixels = np.array([[int((s.classes == k).sum()) for k in (0, 1)] for s in samples])
    return PatchDataset(
        samples,
        SPACE,
        CaseDraw(pixels, 0.5),
        PixelWeights(PixelWeightConfig(), pixels),
        AugmentConfig(),
        patch_shape=(8, 10, 12) if slices is None else (10, 12),
        slices=slices,
    )


@pytest.mark.parametrize("limit", [None, 1 << 13], ids=["whole", "divided"])
@pytest.mark.parametrize("suffix", [".tif", ".zarr", ".npy", ".nii"])
def test_patches_from_files_equal_those_from_memory(tmp_path, suffix, limit):
    kept = store_of(tmp_path, suffix, limit, keep=True)
    lazy = LazySamples(store_of(tmp_path, suffix, limit, keep=False))
    assert all(isinstance(sample.image, LazyImage) for sample in lazy)
    assert len(lazy) == (2 if limit is None else 72)
    first, second = patches(kept), patches(lazy)
    for index in range(12):
        for key, value in first[0, index].items():
            assert value.numpy().tobytes() == second[0, index][key].numpy().tobytes()


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("limit", [None, 1 << 13], ids=["whole", "divided"])
def test_slices_from_files_equal_those_from_memory(tmp_path, slices, limit):
    options = {"by_slice": True, "slices": slices}
    kept = store_of(tmp_path, ".zarr", limit, keep=True, **options)
    lazy = LazySamples(store_of(tmp_path, ".zarr", limit, keep=False, **options))
    assert all(isinstance(sample.image, LazyImage) for sample in lazy)
    first, second = patches(kept, slices), patches(lazy, slices)
    for index in range(12):
        assert first[0, index]["image"].shape == (slices, 10, 12)
        for key, value in first[0, index].items():
            assert value.numpy().tobytes() == second[0, index][key].numpy().tobytes()


def test_floats_are_cut_as_float32(tmp_path):
    image = VOLUME / 7
    kept = store_of(tmp_path, ".npy", None, keep=True, image=image)
    lazy = LazySamples(store_of(tmp_path, ".npy", None, keep=False, image=image))
    assert lazy[0].image.dtype == kept[0].image.dtype == np.float32
    assert patches(kept)[0, 3]["image"].equal(patches(lazy)[0, 3]["image"])


@pytest.mark.parametrize(
    "changes", [{"downscale": 2}, {"square": True}, {"target_spacing_mm": (0.5, 1.0, 1.0)}]
)
def test_images_that_must_be_changed_are_loaded(tmp_path, changes):
    kept = store_of(tmp_path, ".nii", None, keep=True, **changes)
    lazy = LazySamples(store_of(tmp_path, ".nii", None, keep=False, **changes))
    assert isinstance(lazy[0].image, np.ndarray)
    assert (lazy[0].image == kept[0].image).all()


def test_images_that_have_the_common_spacing_are_not_loaded(tmp_path):
    options = {"target_spacing_mm": (1.0, 1.0, 1.0)}
    kept = store_of(tmp_path, ".nii", None, keep=True, **options)
    lazy = LazySamples(store_of(tmp_path, ".nii", None, keep=False, **options))
    assert isinstance(lazy[0].image, LazyImage)
    assert patches(kept)[0, 3]["image"].equal(patches(lazy)[0, 3]["image"])


def test_images_without_the_spacing_that_is_needed_are_refused(tmp_path):
    options = {"target_spacing_mm": (1.0, 1.0, 1.0)}
    lazy = LazySamples(store_of(tmp_path, ".npy", None, keep=False, **options))
    with raises_code(DataError, "missing_spacing"):
        lazy[0]


def test_compressed_volumes_are_loaded(tmp_path):
    lazy = LazySamples(store_of(tmp_path, ".nii.gz", None, keep=False))
    assert isinstance(lazy[0].image, np.ndarray)
