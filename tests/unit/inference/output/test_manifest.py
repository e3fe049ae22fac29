import json
from pathlib import Path

import numpy as np
import pytest

from ome_zarrs import add_labels, save_image
from ushape.inference.output.manifest import MANIFEST_FILE, PARTS_FOLDER, Manifest
from ushape.types import Case

BELOW = Path("sub/a.png")


@pytest.fixture
def case(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"image")
    return Case(id="a", image=path)


@pytest.fixture
def output(tmp_path):
    """Output folder with the mask of the image."""
    folder = tmp_path / "masks"
    (folder / "sub").mkdir(parents=True)
    (folder / BELOW).write_bytes(b"mask")
    return folder


def finish(folder, case, made_by):
    manifest = Manifest(folder, made_by)
    manifest.begin(BELOW, case)
    manifest.finish(BELOW, case, [folder / BELOW], [{"class": "cell"}])


def test_manifest_of_an_equal_call_knows_finished_images(case, output):
    finish(output, case, {"weights": 1})
    manifest = Manifest(output, {"weights": 1})
    assert manifest.is_done(BELOW, case)
    assert manifest.finished == [BELOW]
    assert manifest.rows_of([BELOW]) == [{"image": "sub/a.png", "class": "cell"}]


def test_manifest_of_another_call_ignores_all_lines(case, output):
    finish(output, case, {"weights": 1})
    manifest = Manifest(output, {"weights": 2})
    assert not manifest.is_ours
    assert not manifest.is_done(BELOW, case)
    assert not manifest.may_replace(BELOW, case)


def test_manifest_detects_changed_images_and_edited_outputs(case, output):
    finish(output, case, {})
    case.image.write_bytes(b"another image")
    manifest = Manifest(output, {})
    assert not manifest.is_done(BELOW, case)
    assert manifest.may_replace(BELOW, case)
    (output / BELOW).write_bytes(b"edited")
    assert not manifest.may_replace(BELOW, case)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_manifest_does_not_count_label_images_and_their_listing(version, output, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx", version, is_consolidated=True)
    case = Case(id="a", image=path)
    finish(output, case, {})
    add_labels(path, np.ones((20, 16), np.uint8))
    assert Manifest(output, {}).is_done(BELOW, case)
    file = path / ("zarr.json" if version == "0.5" else ".zattrs")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attributes": {"other": 1}}))
    assert not Manifest(output, {}).is_done(BELOW, case)


def test_manifest_may_replace_outputs_of_an_interrupted_call(case, output):
    Manifest(output, {}).begin(BELOW, case)
    manifest = Manifest(output, {})
    assert manifest.may_replace(BELOW, case)
    assert not manifest.is_done(BELOW, case)
    manifest.forget()
    assert not manifest.may_replace(BELOW, case)


def test_manifest_skips_damaged_lines(case, output):
    finish(output, case, {})
    path = output / MANIFEST_FILE
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"{]\n[1]\n" + b"".join(others) + b'{"image": "cut off')
    assert Manifest(output, {}).finished == [BELOW]
    assert json.loads(first) == {"made_by": {}}


def test_manifest_detects_a_changed_image_of_the_group(case, output, tmp_path):
    other = Case(id="b", image=tmp_path / "b.png")
    other.image.write_bytes(b"neighbor")
    alone = Case(id="c", image=tmp_path / "c.png", group="another")
    alone.image.write_bytes(b"image")
    together = [case, other, alone]
    manifest = Manifest(output, {}, together)
    for one in (case, alone):
        manifest.begin(Path(f"{one.id}.png"), one)
        manifest.finish(Path(f"{one.id}.png"), one, [], [])
    other.image.write_bytes(b"a changed neighbor")
    manifest = Manifest(output, {}, together)
    assert not manifest.is_done(Path("a.png"), case)
    assert manifest.may_replace(Path("a.png"), case)
    assert manifest.is_done(Path("c.png"), alone)
    manifest.finish(Path("a.png"), case, [], [])
    assert Manifest(output, {}, together[::-1]).is_done(Path("a.png"), case)
    assert not Manifest(output, {}, [case, alone]).is_done(Path("a.png"), case)


def predict_part(folder, case, name, part, made_by=None):
    manifest = Manifest(folder, made_by or {}, part=part)
    (folder / name).write_bytes(b"mask")
    manifest.begin(Path(name), case)
    manifest.finish(Path(name), case, [folder / name], [{"class": name}])
    return manifest


def test_logs_of_parts_are_known_to_all_and_merged_by_the_whole(case, output):
    first = predict_part(output, case, "a.png", "1-of-2")
    second = predict_part(output, case, "b.png", "2-of-2")
    assert first.path != second.path
    assert not (output / MANIFEST_FILE).exists()
    for part in ("1-of-2", "1-of-3", ""):
        manifest = Manifest(output, {}, part=part)
        assert all(manifest.is_done(Path(name), case) for name in ("a.png", "b.png"))
    manifest.merge()
    assert not (output / PARTS_FOLDER).exists()
    manifest = Manifest(output, {})
    assert sorted(manifest.finished) == [Path("a.png"), Path("b.png")]
    assert [row["class"] for row in manifest.rows_of(manifest.finished)] == ["a.png", "b.png"]
    assert len((output / MANIFEST_FILE).read_bytes().splitlines()) == 3


def test_part_leaves_no_log_without_images(case, output):
    Manifest(output, {}, part="1-of-2").merge()
    assert not (output / PARTS_FOLDER).exists()


def test_log_that_grows_while_it_is_merged_is_kept(case, output):
    part = predict_part(output, case, "a.png", "1-of-2")
    whole = Manifest(output, {})
    part.finish(Path("b.png"), case, [], [])
    whole.merge()
    assert Manifest(output, {}).is_done(Path("b.png"), case)
    part.path.unlink()
    part.finish(Path("c.png"), case, [], [])  # Its log was merged in the meantime.
    assert Manifest(output, {}).is_done(Path("c.png"), case)


def test_last_of_the_lines_in_several_logs_counts(case, output, monkeypatch):
    monkeypatch.setattr("ushape.inference.output.manifest.time.time", lambda: 100.0)
    predict_part(output, case, "a.png", "1-of-2")
    earlier = [Manifest(output, {}, part="1-of-2") for _ in range(8)]  # Logs have random names.
    case.image.write_bytes(b"another image")
    monkeypatch.setattr("ushape.inference.output.manifest.time.time", lambda: 200.0)
    predict_part(output, case, "a.png", "1-of-3")
    for one in earlier:
        monkeypatch.setattr("ushape.inference.output.manifest.time.time", lambda: 150.0)
        one.begin(Path("a.png"), case)
        assert Manifest(output, {}).is_done(Path("a.png"), case)


@pytest.mark.parametrize("forgets", [False, True])
def test_new_lines_of_the_same_call_are_later_although_the_clock_is_slow(
    case, output, monkeypatch, forgets
):
    monkeypatch.setattr("ushape.inference.output.manifest.time.time", lambda: 2e9)
    predict_part(output, case, "a.png", "1-of-2")
    case.image.write_bytes(b"another image")
    monkeypatch.setattr("ushape.inference.output.manifest.time.time", lambda: 1e9)
    for _ in range(8):  # Logs have random names.
        manifest = Manifest(output, {}, part="1-of-3")
        if forgets:
            manifest.forget()
        manifest.begin(Path("a.png"), case)
        assert not Manifest(output, {}).is_done(Path("a.png"), case)
        manifest.finish(Path("a.png"), case, [], [])
        assert Manifest(output, {}).is_done(Path("a.png"), case)


def test_part_may_replace_what_another_process_begins_later(case, output):
    manifest = Manifest(output, {}, part="1-of-2")
    (output / "a.png").write_bytes(b"mask")
    assert not manifest.may_replace(Path("a.png"), case)
    predict_part(output, case, "a.png", "1-of-2")
    assert manifest.may_replace(Path("a.png"), case)


def test_outputs_are_read_again_only_to_verify_them(case, output):
    finish(output, case, {})
    (output / BELOW).write_bytes(b"edit")  # As long as before.
    assert Manifest(output, {}).is_done(BELOW, case)
    assert not Manifest(output, {}).may_replace(BELOW, case)
    assert not Manifest(output, {}, verify=True).is_done(BELOW, case)
    for content in (b"cut", None):
        (output / BELOW).write_bytes(content) if content else (output / BELOW).unlink()
        assert not Manifest(output, {}).is_done(BELOW, case)


def test_interrupted_replacement_may_be_repeated(case, output):
    finish(output, case, {})
    case.image.write_bytes(b"another image")
    Manifest(output, {}).begin(BELOW, case)
    (output / BELOW).write_bytes(b"mask of the other image")
    manifest = Manifest(output, {})
    assert manifest.may_replace(BELOW, case)
    assert not manifest.is_done(BELOW, case)


OTHER = {"weights": "other"}


@pytest.mark.parametrize("part", ["", "1-of-2"])
def test_output_that_a_part_of_another_model_has_replaced_is_not_finished(case, output, part):
    for name in ("a.png", "b.png"):
        predict_part(output, case, name, part)
    predict_part(output, case, "a.png", "2-of-3", OTHER)  # The masks are equal in size.
    for own in ("", "1-of-2"):
        manifest = Manifest(output, {}, part=own)
        assert not manifest.is_done(Path("a.png"), case)
        assert not manifest.may_replace(Path("a.png"), case)
        assert manifest.finished == [Path("b.png")]
    assert Manifest(output, OTHER).finished == [Path("a.png")]


def test_output_that_a_part_of_another_model_has_begun_to_replace_is_not_finished(case, output):
    predict_part(output, case, "a.png", "")
    Manifest(output, OTHER, part="2-of-3").begin(Path("a.png"), case)
    manifest = Manifest(output, {})
    assert not manifest.is_done(Path("a.png"), case)
    assert not manifest.may_replace(Path("a.png"), case)


def test_logs_of_parts_of_another_model_are_merged_once_all_is_replaced(case, output):
    for name in ("a.png", "b.png"):
        predict_part(output, case, name, "1-of-2", OTHER)
    predict_part(output, case, "a.png", "1-of-2")
    Manifest(output, {}).merge()
    assert Manifest(output, OTHER).finished == [Path("b.png")]
    assert Manifest(output, {}).finished == [Path("a.png")]
    predict_part(output, case, "b.png", "1-of-2")
    Manifest(output, {}).merge()
    assert not (output / PARTS_FOLDER).exists()
    assert Manifest(output, OTHER).finished == []
    assert sorted(Manifest(output, {}).finished) == [Path("a.png"), Path("b.png")]


def test_order_of_the_calls_counts_although_a_clock_is_wrong(case, output, monkeypatch):
    monkeypatch.setattr("ushape.inference.output.manifest.time.time", lambda: 2e9)
    predict_part(output, case, "a.png", "1-of-2")
    monkeypatch.setattr("ushape.inference.output.manifest.time.time", lambda: 1e9)
    predict_part(output, case, "a.png", "2-of-3", OTHER)
    assert not Manifest(output, {}).is_done(Path("a.png"), case)
    assert Manifest(output, OTHER).is_done(Path("a.png"), case)


@pytest.mark.parametrize("time", ["null", '"x"', "true", "[]", "NaN", "1e999", "1" + 400 * "0"])
def test_line_whose_time_is_no_number_is_older_than_all_others(case, output, time):
    finish(output, case, {"weights": "a"})
    folder = output / PARTS_FOLDER
    folder.mkdir()
    for name, made_by in (("1", {"weights": "a"}), ("2", {"weights": "b"})):
        lines = [json.dumps({"made_by": made_by}), f'{{"image": "{BELOW}", "time": {time}}}']
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert Manifest(output, {"weights": "a"}).finished == [BELOW]
