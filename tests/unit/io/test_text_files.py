import pytest

from ushape.io.text_files import first_line, open_text, separator_of


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_open_text_reads_the_encodings_that_programs_write(encoding, tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("name;größe\r\nä;1\r\n".encode(encoding))
    with open_text(path) as file:
        assert file.read() == "name;größe\r\nä;1\r\n"


def test_open_text_decodes_characters_across_chunks(monkeypatch, tmp_path):
    monkeypatch.setattr("ushape.io.text_files.CHUNK_BYTES", 3)
    path = tmp_path / "table.csv"
    path.write_text("aäöü\n", encoding="utf-8")
    with open_text(path) as file:
        assert file.read() == "aäöü\n"


@pytest.mark.parametrize(
    ("name", "text", "separator"),
    [
        ("a.csv", "image,mask", ","),
        ("a.csv", "sep=;\nimage;mask", ";"),
        ("a.csv", "image\tmask", "\t"),
        ("a.tsv", "image", "\t"),
    ],
)
def test_separator_is_found_in_the_first_line(name, text, separator, tmp_path):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with open_text(path) as file:
        first = first_line(file)
    assert first.startswith("image")
    assert separator_of(path, first) == separator
