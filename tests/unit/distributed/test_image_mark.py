import os

from ushape.distributed.image_mark import mark_of_image


def test_mark_of_a_file_changes_with_its_size_and_time(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"1")
    marks = [mark_of_image(path)]
    path.write_bytes(b"12")
    marks.append(mark_of_image(path))
    os.utime(path, ns=(0, 5))
    marks.append(mark_of_image(path))
    assert len(set(marks)) == 3
    assert mark_of_image(path) == marks[-1]


def test_mark_of_a_folder_ignores_labels_and_samples_the_chunks(tmp_path):
    image = tmp_path / "a.zarr"
    for number in range(100):
        chunk = image / "0" / "c" / str(number) / "0"
        chunk.parent.mkdir(parents=True)
        chunk.write_bytes(b"1")
        os.utime(chunk, ns=(0, 0))
    before = mark_of_image(image)
    (image / "labels" / "cells").mkdir(parents=True)
    (image / "labels" / "zarr.json").write_text("{}")
    (image / ".zmetadata").write_text("{}")
    assert mark_of_image(image) == before
    for number in range(100):
        os.utime(image / "0" / "c" / str(number) / "0", ns=(0, 1))
    assert mark_of_image(image) != before
