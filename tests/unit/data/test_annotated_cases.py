"""Cases of several files: kept in a run, prepared, and their classes as the data state them."""

import json

import numpy as np
import pytest
from PIL import Image

from ushape.data.layouts.names import StatedClasses
from ushape.data.scan import complete_labels, scan_dataset
from ushape.errors import DataError
from ushape.labels import LabelConfig
from ushape.planning.run import Run
from ushape.types import Case, CaseFacts, CocoMask, MaskParts


def test_every_kind_of_case_is_found_again(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.png", "a1.png", "b.png", "c.png"):
        (data / name).write_bytes(b"x")
    cases = [
        Case(
            id="a",
            image=data / "a.png",
            channels=(data / "a1.png",),
            mask=MaskParts((data / "m1.png", tmp_path / "m2.png"), (1, 3)),
            split="test",
            metadata={"stain": "PAS"},
        ),
        Case(id="b", image=data / "b.png", mask=CocoMask(data / "x.json", 5)),
        Case(id="c", image=data / "c.png", mask=CocoMask(data / "x.json", "five"), group="g"),
    ]
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    facts = [CaseFacts(case, (5, 7)) for case in cases]
    run.save_cases(data, facts, "checksum")
    assert run.load_cases() == facts
    first = json.loads(run.cases_path.read_text())["cases"][0]
    assert first["mask"] == {"parts": ["m1.png", str(tmp_path / "m2.png")], "values": [1, 3]}

    (data / "t.csv").write_text("image,mask\n")  # A table as data: paths below its folder.
    run.save_cases(data / "t.csv", facts, "checksum")
    assert run.load_cases() == facts


def complete(stated, counts, **labels):
    return complete_labels(LabelConfig(**labels), stated, dict.fromkeys(counts, 1))


def stated(tmp_path, **changes):
    return StatedClasses(source=tmp_path / "classes.txt", **changes)


def test_names_without_values(tmp_path):
    names = stated(tmp_path, names=("back", "cell", "gap"))
    assert complete(names, (0, 2)).values == (0, 1, 2)
    assert complete(names, (0, 100, 200)).values == (0, 100, 200)
    assert complete(names, (0, 1, 2, 255), ignore=255).values == (0, 1, 2)
    with pytest.raises(DataError) as error:
        complete(names, (0, 255))
    assert error.value.code == "class_names_mismatch"


def test_names_with_values(tmp_path):
    found = complete(stated(tmp_path, names=("b", "c"), values=(0, 9), ignore=255), (0, 9, 255))
    assert (found.values, found.names, found.ignore) == ((0, 9), ("b", "c"), 255)
    void = stated(tmp_path, names=("b", "c", "void"), values=(0, 9, 255))
    found = complete(void, (0, 9, 255), ignore=255)
    assert (found.values, found.names, found.ignore) == ((0, 9), ("b", "c"), 255)


def test_what_the_user_lays_down_wins(tmp_path):
    names = stated(tmp_path, names=("b", "c"), values=(0, 9))
    assert complete(names, (0, 9), values=(9, 0)) == LabelConfig(values=(9, 0))
    assert complete(names, (0, 9), threshold=5) == LabelConfig(threshold=5)
    assert complete(names, (0, 9), names=("x", "y")).names == ("x", "y")
    assert complete(None, (0, 9)) == LabelConfig()


def test_objects_are_foreground_however_many(tmp_path):
    for name in ("n1", "n2", "n3"):
        for kind, count in (("images", 1), ("masks", 3)):
            folder = tmp_path / name / kind
            folder.mkdir(parents=True)
            for index in range(count):
                dot = np.zeros((8, 8), np.uint8)
                dot[2 * index, 2 * index] = 255
                path = folder / (f"{name}.png" if kind == "images" else f"{index}.png")
                Image.fromarray(dot).save(path)
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=1)
    assert stats.space.names == ("background", "foreground")
    assert stats.label_rule == "one mask per object, all of them foreground"
    assert [stats.class_pixels(one) for one in stats.case_stats] == [(61, 3)] * 3
