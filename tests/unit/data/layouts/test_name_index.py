import os
import random
from collections import Counter

import pytest

from ushape.data.layouts import differences
from ushape.data.layouts.differences import rank_differences
from ushape.data.layouts.listing import images_below, listed_once
from ushape.data.layouts.name_index import NameIndex
from ushape.data.layouts.names import stem_key, words_of
from ushape.io import listing
from ushape.io.listing import RealPaths

WORDS = ["img", "a", "raw", "mask", "m", "p1", "é", "seg", "_", "-", " ", "12", "3", "s1/", "²"]


def made_names(rng):
    """Random names, which share words and numbers."""
    return {
        "".join(rng.choice([*WORDS, str(rng.randrange(40))]) for _ in range(rng.randrange(1, 5)))
        for _ in range(rng.randrange(1, 25))
    }


def pairs_one_by_one(difference, images, masks):
    """The images that differ from each mask in this way, by comparison of all names."""
    own = {
        mask: {
            image
            for image in images
            if image != mask
            and set(difference.cores(image, difference.image))
            & set(difference.cores(mask, difference.mask))
        }
        for mask in masks
    }
    counts = Counter(image for several in own.values() for image in several)
    return {
        mask: image
        for mask, several in own.items()
        for image in several
        if len(several) == 1 and counts[image] == 1
    }


@pytest.mark.parametrize("frequent", [3, 1000])
def test_pairs_are_those_of_a_comparison_of_all_names(frequent, monkeypatch):
    rng = random.Random(7)
    monkeypatch.setattr(differences, "FREQUENT", frequent)
    for _ in range(12):
        images = made_names(rng)
        masks = {f"{name}_mask" for name in images} | made_names(rng)
        for both in ((images, masks), (images | masks,) * 2):
            first, second = ({name: name for name in sorted(names)} for names in both)
            for difference, pairs in rank_differences(first, second):
                assert pairs == pairs_one_by_one(difference, first, second)


def test_words_are_found_as_by_words_of():
    rng = random.Random(8)
    for _ in range(100):
        names = sorted(made_names(rng))
        index = NameIndex(names)
        for word in {word for name in names for word in words_of(name)}:
            assert index.with_word(word) == [name for name in names if word in words_of(name)]


def test_images_are_sorted_like_paths_and_keyed_by_their_place(tmp_path):
    for name in ("b.png", "a/z.png", "a.png", "a-/x.png", "B/y.nii.gz", ".hidden/h.png", "a/t.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "again").symlink_to(tmp_path)  # A link into a folder above is not followed.
    expected = sorted(
        p for p in tmp_path.rglob("*.[pn]*") if p.is_file() and ".hidden" not in p.parts
    )
    with listed_once():
        assert images_below(tmp_path) == images_below(tmp_path) == expected
    keys = {stem_key(path, tmp_path) for path in expected}
    assert keys == {"b", "a/z", "a", "a-/x", "B/y"}


def test_real_paths_of_many_files_are_those_of_each(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "FEW", 1)
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").touch()
    (folder / "link.png").symlink_to(folder / "0.png")
    (tmp_path / "other").symlink_to(folder)
    paths = RealPaths()
    for place in (folder, tmp_path / "other"):
        for path in sorted(place.iterdir()):
            assert paths.of(path) == os.path.realpath(path)
