"""Tables of images and masks as spreadsheet programs write them."""

import pytest

from ushape.data.discovery import discover


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "sep={}\r\n"])
def test_table_of_windows(draw, tmp_path, encoding, separator, start):
    rows = [["Image", "Mask", "group"]]
    for number in range(3):
        draw(f"Bilder/Größe {number}.JPG")
        draw(f"Masken/Größe {number}.png", number)
        rows.append([f"bilder\\größe {number}.jpg", f".\\Masken\\Größe {number}.png", f"p{number}"])
    text = "\r\n".join(separator.join(row) for row in rows)
    table = tmp_path / "list.csv"
    table.write_bytes((start.format(separator) + text).encode(encoding))
    for data in (tmp_path, table):
        found = discover(data)
        assert [case.id for case in found.cases] == [f"Bilder/Größe {n}" for n in range(3)]
        assert [case.group for case in found.cases] == ["p0", "p1", "p2"]
        assert all(case.image.exists() and case.mask.exists() for case in found.cases)
