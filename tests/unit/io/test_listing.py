import sys

import pytest

from ushape.io.files import real_path
from ushape.io.listing import FEW, Listing


@pytest.mark.parametrize("asked", [0, FEW])
def test_listing_states_what_the_file_system_states(asked, tmp_path):
    listing, file = Listing(), tmp_path / "a.png"
    file.write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    for number in range(asked):
        assert listing.facts_of(str(tmp_path / f"{number}.png")) is None
    facts = listing.facts_of(str(file))
    assert facts.size == 5
    assert facts.changed_ns == file.stat().st_mtime_ns
    assert not facts.is_folder
    assert listing.facts_of(str(tmp_path / "folder")).is_folder
    assert listing.facts_of(str(tmp_path / "missing" / "b.png")) is None


@pytest.mark.skipif(sys.platform == "win32", reason="links need a permission there")
@pytest.mark.parametrize("asked", [0, FEW])
def test_listing_follows_links(asked, tmp_path):
    folder, link = tmp_path / "images", tmp_path / "link"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"12345")
    link.symlink_to(folder)
    (folder / "b.png").symlink_to("a.png")
    (folder / "c.png").symlink_to("missing.png")
    (folder / "d.png").symlink_to("d.png")
    listing = Listing()
    for number in range(asked):
        listing.facts_of(str(link / f"{number}.png"))
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
        assert listing.real_path(link / name) == str(real_path(link / name))
    assert listing.facts_of(str(link / "b.png")).size == 5
    assert listing.facts_of(str(link / "b.png")).is_link
    assert listing.facts_of(str(link / "c.png")) is None
