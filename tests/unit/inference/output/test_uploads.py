"""Uploads with a writer that only names files; `tests/stories/test_remote.py` predicts."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import fsspec
import pytest

from codes import raises_code
from ushape.data.inputs import Input
from ushape.data.remote_images import RemoteImages
from ushape.errors import RunError
from ushape.inference.output import OutputConfig, uploads
from ushape.inference.output.manifest import Manifest
from ushape.inference.output.uploads import LOG_FOLDER, Uploads
from ushape.io.remote import RemoteFolder
from ushape.types import Case

URL = "memory://bucket/masks"


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    while Call.opened:  # Otherwise their timers would upload something later.
        Call.opened.pop().close()
    files.store.clear()


def make_input(name):
    origin = (f"memory://bucket/images/{name}.png", "version")
    return Input(Case(id=name, image=Path(f"{name}.png"), origin=origin), Path(f"{name}.png"))


class Call:
    """A call of predict whose masks are the names of the images."""

    opened: ClassVar[list[Uploads]] = []

    def __init__(self, folder, *, overwrite=False, weights="w", table=False):
        folder.mkdir(exist_ok=True)
        manifest = Manifest(folder, {"weights": weights})
        config = OutputConfig(folder=folder, overwrite=overwrite)
        self.folder = folder
        self.writer = SimpleNamespace(
            manifest=manifest,
            config=config,
            submission=None,
            writes_images_table=table,
            outputs_of=lambda image: [folder / image.below],
        )
        self.uploads = Uploads(RemoteFolder(URL), self.writer)
        self.opened.append(self.uploads)

    def predict(self, *names):
        images = list(map(make_input, names))
        left = [one for one in images if not self.uploads.is_done(one)]
        self.uploads.check(left)
        for one in left:
            self.writer.manifest.begin(one.below, one.case)
            (self.folder / one.below).write_text(one.case.id)
            self.writer.manifest.finish(one.below, one.case, [self.folder / one.below], [{"n": 1}])
            self.uploads.add(one)
        return [one.case.id for one in left]


def wait_until(is_true):
    """Wait for another thread."""
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def masks(memory):
    return {
        path.removeprefix("/bucket/masks/"): memory.cat_file(path)
        for path in memory.find("/bucket/masks")
        if LOG_FOLDER not in path
    }


def test_outputs_are_uploaded_removed_and_not_made_again(memory, tmp_path):
    call = Call(tmp_path / "a")
    assert call.predict("x", "y") == ["x", "y"]
    call.uploads.finish()
    assert masks(memory) == {"x.png": b"x", "y.png": b"y"}
    assert not list(call.folder.glob("*.png"))
    again = Call(tmp_path / "b")
    assert again.predict("x", "y", "z") == ["z"]
    again.uploads.finish()
    assert len(memory.find(f"/bucket/masks/{LOG_FOLDER}")) == 1
    assert Call(tmp_path / "c").predict("x", "y", "z") == []


def test_interrupted_upload_is_repeated(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "BATCH_IMAGES", 1)
    call = Call(tmp_path / "a")
    put_all = RemoteFolder.put_all

    def stop(self, files):
        put_all(self, files)
        raise KeyboardInterrupt

    monkeypatch.setattr(RemoteFolder, "put_all", stop)
    with pytest.raises(KeyboardInterrupt):
        call.predict("x", "y")
    assert masks(memory) == {"x.png": b"x"}
    monkeypatch.setattr(RemoteFolder, "put_all", put_all)
    again = Call(tmp_path / "b")
    assert again.predict("x", "y") == ["x", "y"]
    again.uploads.finish()
    assert masks(memory) == {"x.png": b"x", "y.png": b"y"}


def test_outputs_of_slow_images_are_uploaded_although_the_batch_is_small(
    memory, tmp_path, monkeypatch
):
    monkeypatch.setattr(uploads, "BATCH_S", 0.0)
    call = Call(tmp_path / "a")
    for name in "xy":
        call.predict(name)
        wait_until(lambda name=name: len(logs(memory)) > 0 and f"{name}.png" in masks(memory))
    wait_until(lambda: all(one.done() for one in call.uploads._uploads))
    call.uploads.close()  # As if it were killed: neither stop nor finish.
    assert Call(tmp_path / "b").predict("x", "y", "z") == ["z"]


def test_call_that_ends_early_uploads_what_is_complete(memory, tmp_path):
    call = Call(tmp_path / "a")
    call.predict("x", "y")
    assert masks(memory) == {}
    call.uploads.stop()
    call.uploads.close()
    assert masks(memory) == {"x.png": b"x", "y.png": b"y"}
    assert Call(tmp_path / "b").predict("x", "y", "z") == ["z"]


def test_call_that_ends_early_does_not_wait_for_a_server(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "STOP_S", 0.0)
    ended, has_begun = threading.Event(), threading.Event()

    def hang(self, files):
        has_begun.set()
        assert ended.wait(60)
        self.put_bytes(b"late", "x.png")

    monkeypatch.setattr(RemoteFolder, "put_all", hang)
    call = Call(tmp_path / "a")
    call.predict("x")
    call.uploads._start()
    assert has_begun.wait(60)
    call.predict("y")
    call.uploads.stop()  # Returns although the upload is in progress.
    ended.set()
    call.uploads.close()
    assert masks(memory) == {}


def test_failed_upload_is_reported_with_the_next_image(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(RemoteFolder, "put_all", lambda self, files: 1 / 0)
    call = Call(tmp_path / "a")
    call.predict("x")
    call.uploads._start()
    wait_until(call.uploads._uploads[0].done)
    with pytest.raises(ZeroDivisionError):
        call.predict("y")
    call.uploads.stop()
    call.uploads.close()


def test_changed_or_missing_output_is_made_again(memory, tmp_path):
    call = Call(tmp_path / "a")
    call.predict("x", "y", "z")
    call.uploads.finish()
    memory.rm("/bucket/masks/x.png")
    memory.pipe({"/bucket/masks/y.png": b"edited"})
    assert Call(tmp_path / "b").predict("x", "z") == ["x"]


def test_files_of_the_user_are_not_replaced(memory, tmp_path):
    memory.pipe({"/bucket/masks/x.png": b"mine"})
    with pytest.raises(RunError) as error:
        Call(tmp_path / "a").predict("x")
    assert error.value.code == "output_exists"
    call = Call(tmp_path / "b", overwrite=True)
    call.predict("x")
    call.uploads.finish()
    assert masks(memory) == {"x.png": b"x"}


def test_outputs_of_another_model_are_not_replaced(memory, tmp_path):
    call = Call(tmp_path / "a")
    call.predict("x")
    call.uploads.finish()
    with pytest.raises(RunError) as error:
        Call(tmp_path / "b", weights="other").predict("x")
    assert error.value.code == "output_exists"


def logs(memory):
    return memory.find(f"/bucket/masks/{LOG_FOLDER}")


def replace_by_another_model(folder, *names):
    other = Call(folder, weights="other", overwrite=True)
    other.predict(*names)
    other.uploads.finish()


def test_masks_that_another_model_has_replaced_are_not_finished(memory, tmp_path):
    first = Call(tmp_path / "a")
    first.predict("x", "y")
    first.uploads.finish()
    replace_by_another_model(tmp_path / "b", "x")  # The masks have equal sizes.
    third = Call(tmp_path / "c")
    assert not third.uploads.is_done(make_input("x"))
    assert third.uploads.is_done(make_input("y"))
    with raises_code(RunError, "output_exists"):
        third.predict("x", "y")
    assert Call(tmp_path / "d", weights="other").predict("x") == []
    last = Call(tmp_path / "e", overwrite=True)
    assert last.predict("x") == ["x"]
    last.uploads.finish()
    assert Call(tmp_path / "f").predict("x", "y") == []
    assert len(logs(memory)) == 1


def test_mask_of_another_model_with_another_size_is_not_replaced(memory, tmp_path):
    first = Call(tmp_path / "a")
    first.predict("x")
    first.uploads.finish()
    replace_by_another_model(tmp_path / "b", "x")
    memory.pipe({"/bucket/masks/x.png": b"larger"})
    with raises_code(RunError, "output_exists"):
        Call(tmp_path / "c").predict("x")


def test_mask_that_another_model_has_begun_to_replace_is_not_finished(
    memory, tmp_path, monkeypatch
):
    first = Call(tmp_path / "a")
    first.predict("x")
    first.uploads.finish()
    other = Call(tmp_path / "b", weights="other", overwrite=True)
    monkeypatch.setattr(RemoteFolder, "put_all", lambda self, files: 1 / 0)
    other.predict("x")
    with pytest.raises(ZeroDivisionError):
        other.uploads.finish()
    assert not Call(tmp_path / "c").uploads.is_done(make_input("x"))


def test_order_of_the_calls_counts_although_a_clock_is_wrong(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads.time, "time", lambda: 2e9)
    first = Call(tmp_path / "a")
    first.predict("x")
    first.uploads.finish()
    monkeypatch.setattr(uploads.time, "time", lambda: 1e9)
    replace_by_another_model(tmp_path / "b", "x")
    assert not Call(tmp_path / "c").uploads.is_done(make_input("x"))
    assert Call(tmp_path / "d", weights="other").predict("x") == []


def test_log_of_another_model_is_kept_while_it_has_finished_images(memory, tmp_path):
    replace_by_another_model(tmp_path / "a", "x", "y")
    for name in "bc":
        call = Call(tmp_path / name, overwrite=True)
        call.predict("x")
        call.uploads.finish()
    other = Call(tmp_path / "d", weights="other")
    assert not other.uploads.is_done(make_input("x"))
    assert other.predict("y") == []


def test_images_are_not_replaced_by_their_masks(memory, tmp_path):
    call, image = Call(tmp_path / "a"), make_input("x")
    call.uploads._remote = RemoteFolder("memory://bucket/images")
    with pytest.raises(RunError) as error:
        call.uploads.check([image])
    assert error.value.code == "output_is_input"


def test_several_calls_write_to_one_url(memory, tmp_path):
    calls = [Call(tmp_path / name) for name in "ab"]
    calls[0].predict("x")
    calls[1].predict("y")
    for call in calls:
        call.uploads.finish()
    assert Call(tmp_path / "c").predict("x", "y") == []


def test_table_is_written_by_a_call_whose_images_are_all_finished(memory, tmp_path):
    for name in "xy":
        part = Call(tmp_path / name)
        part.predict(name)
        part.uploads.finish()
    last = Call(tmp_path / "all", table=True)
    assert last.predict("x", "y") == []
    last.uploads.finish()
    assert masks(memory)["images.csv"].decode().split() == ["image,n", "x.png,1", "y.png,1"]
    Call(tmp_path / "again", table=True).predict("x", "y")


def test_table_of_the_user_is_not_replaced(memory, tmp_path):
    memory.pipe({"/bucket/masks/images.csv": b"mine"})
    with pytest.raises(RunError) as error:
        Call(tmp_path / "a", table=True).predict("x")
    assert error.value.code == "output_exists"
    call = Call(tmp_path / "b")
    call.predict("x")
    call.uploads.finish()
    assert masks(memory)["images.csv"] == b"mine"


def test_interrupted_upload_is_repeated_after_another_call_has_ended(memory, tmp_path):
    call = Call(tmp_path / "a")
    call.uploads._write_log([{"image": "x.png", "source": list(make_input("x").case.origin)}])
    memory.pipe({"/bucket/masks/x.png": b"x"})
    other = Call(tmp_path / "b")
    other.predict("y")
    other.uploads.finish()
    assert Call(tmp_path / "c").predict("x", "y") == ["x"]


def test_table_has_only_images_whose_outputs_exist(memory, tmp_path):
    call = Call(tmp_path / "a", table=True)
    call.predict("w", "x", "y")
    call.uploads.finish()
    memory.rm("/bucket/masks/x.png")
    memory.pipe({"/bucket/masks/y.png": b"edited"})
    again = Call(tmp_path / "b", table=True)
    assert again.predict("w", "z") == ["z"]  # The images x and y were removed.
    again.uploads.finish()
    assert masks(memory)["images.csv"].decode().split() == ["image,n", "w.png,1", "z.png,1"]


def test_image_with_a_space_in_its_name_is_not_replaced(memory, tmp_path):
    memory.pipe({"/bucket/masks/my image.png": b"image"})
    images = RemoteImages(tmp_path)
    path = images.add(f"{URL}/my image.png")
    found = images.with_origins([Input(Case(id="x", image=path), Path("my image.png"))])
    images.close()
    with pytest.raises(RunError) as error:
        Call(tmp_path / "a", overwrite=True).uploads.check(found)
    assert error.value.code == "output_is_input"


def test_files_that_are_no_logs_are_ignored(memory, tmp_path):
    memory.pipe({f"/bucket/masks/{LOG_FOLDER}{name}": b"[1]" for name in ("a.txt", "x.jsonl")})
    assert Call(tmp_path / "a").predict("x") == ["x"]


@pytest.mark.parametrize("content", [b"\xff\x00", b"{", b"[1]\n[2]\n", b"1\n", b""])
def test_damaged_log_is_ignored(memory, tmp_path, content):
    memory.pipe({f"/bucket/masks/{LOG_FOLDER}{'0' * 32}.jsonl": content})
    assert Call(tmp_path / "a").predict("x") == ["x"]


def test_damaged_lines_of_a_log_are_ignored(memory, tmp_path):
    call = Call(tmp_path / "a")
    call.predict("x", "y")
    call.uploads.finish()
    (log,) = [name for name in memory.store if LOG_FOLDER in name]
    header, *lines = memory.cat_file(log).splitlines(keepends=True)
    damaged = [b"[1]\n", b"{}\n", b'{"image":3}\n', b'{"image":"z.png","source":5}\n']
    damaged += [b'{"image":"z.png","source":["z","v"],"files":[],"rows":1}\n', lines[1][:-9]]
    memory.pipe({log: header + lines[0] + b"".join(damaged)})
    memory.rm("/bucket/masks/y.png")
    assert Call(tmp_path / "b").predict("x", "y", "z") == ["y", "z"]
