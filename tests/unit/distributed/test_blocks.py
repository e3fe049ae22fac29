"""Blocks that several processes compute: their division, and a task that replaces another one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from block_runs import make_task
from codes import raises_code
from ushape.distributed import blocks
from ushape.distributed.block_task import (
    FOUND,
    OBJECTS,
    PIECES,
    PREDICT,
    TASK_FILE,
    CleaningStep,
    open_task,
)
from ushape.distributed.blocks import run_block, run_serially, run_task
from ushape.distributed.parts import Part
from ushape.errors import RunError
from ushape.io.files import CHECKSUM, write_sealed_json

SHAPE, BLOCK = (12, 40), (4, 4)
"""30 blocks: 3 rows of 10."""


@pytest.fixture
def task(tmp_path):
    """A task whose prediction is finished and whose objects are left."""
    task = make_task(tmp_path / "mask.zarr.blocks", SHAPE, BLOCK)
    task.output.open()[...] = 10 * (np.random.default_rng(0).random(SHAPE) < 0.5)
    task.close(PREDICT)
    return task


def run_part(task, text, execute=run_serially):
    number, count = map(int, text.split("/"))
    return run_task(task, execute, "cpu", Part(number, count), lambda *_: None)


def killed_after(count, found):
    """Return a function that computes blocks until the process is killed, and notes all of them."""

    def execute(function, indices):
        found.extend(indices)
        yield from map(function, indices[:count])
        if indices:
            raise KeyboardInterrupt

    return execute


def blocks_of(task, part, count=0):
    """The blocks of the next stage that a part computes, in order; so many are computed."""
    found = []
    with pytest.raises(KeyboardInterrupt):
        run_part(task, part, killed_after(count, found))
    return found


def count_computed(lists, seconds):
    """Return how many blocks processes compute that skip those which are marked already.

    Args:
        lists: Blocks of each process.
        seconds: Time of each process for one block, a whole number.
    """
    marked, computed, now, ahead = set(), 0, 0, [iter(one) for one in lists]
    current = [None] * len(lists)
    while True:
        ready = [n for n, own in enumerate(seconds) if now % own == 0]
        marked.update(current[n] for n in ready)
        for n in ready:
            current[n] = next((index for index in ahead[n] if index not in marked), None)
            computed += current[n] is not None
        if not any(one is not None for one in current):
            return computed
        now += 1


def test_a_repeated_array_divides_the_later_stages(tmp_path):
    task = make_task(tmp_path / "task", (12, 400), BLOCK)
    task.close(PREDICT)
    lists = [blocks_of(task, f"{number}/8") for number in range(1, 9)]
    for number, own in enumerate(lists):
        first = list(range(number, 300, 8))
        assert own[: len(first)] == first
        assert sorted(own) == list(range(300))  # Each part can complete the stage.
    assert count_computed(lists, [1] * 8) == pytest.approx(300, rel=0.1)
    # Processes of different speed, and only half of the array. If all of them did the blocks of
    # others in order, they would compute 380 and 744 blocks, because they would do the same ones.
    assert count_computed(lists, [2, 3] * 4) == pytest.approx(300, rel=0.1)
    assert count_computed(lists[:4], [1] * 4) == pytest.approx(300, rel=0.1)


def test_predicted_are_only_the_own_blocks(tmp_path):
    task = make_task(tmp_path / "task", SHAPE, BLOCK)
    assert blocks_of(task, "2/4") == list(range(1, 30, 4))


def test_a_part_completes_the_stages_that_others_have_begun(task, tmp_path):
    serial = make_task(tmp_path / "serial", SHAPE, BLOCK)
    serial.output.open()[...] = task.output.open()[...]
    serial.close(PREDICT)
    assert run_part(serial, "1/1") == 0

    for part in ("1/3", "3/3", "1/3"):
        blocks_of(task, part, count=7)
    assert len(task.left_blocks(PIECES)) == 30 - 7 - 7 - 7
    assert run_part(task, "2/3") == 0
    np.testing.assert_array_equal(task.objects.open()[...], serial.objects.open()[...])
    assert task.objects.open()[...].max() > 10


def replaced(task):
    """Return a task that replaces another one in its folder."""
    new = replace(task, token="new")
    elsewhere = replace(new, folder=task.folder.with_name("elsewhere"))
    elsewhere.save()
    (elsewhere.folder / TASK_FILE).replace(new.folder / TASK_FILE)
    return new


def content(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", [PREDICT, PIECES, OBJECTS])
def test_a_block_of_a_replaced_task_neither_starts_nor_is_marked(task, stage):
    new = replaced(task)
    before = content(new.folder)
    for act in (
        partial(run_block, str(task.folder), task.token, "cpu", stage, 3),
        partial(task.mark, stage, 3),
        partial(task.write, task.output.open(), ((0, 4), (12, 16)), np.ones(BLOCK, np.uint8)),
    ):
        with pytest.raises(RunError) as error:
            act()
        assert error.value.code == "task_replaced"
    assert content(new.folder) == before
    assert new.left_blocks(stage) == list(range(30))


def test_a_worker_that_does_not_see_the_folder_says_so(task):
    shutil.rmtree(task.folder)
    for act in (
        partial(run_block, str(task.folder), task.token, "cpu", PREDICT, 3),
        partial(task.mark, PREDICT, 3),
    ):
        with raises_code(RunError, "task_folder_missing") as error:
            act()
        assert str(task.folder) in error.value.message
    assert not task.folder.exists()


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_task_that_is_replaced_during_a_block_ends(task, is_removed, monkeypatch):
    def compute(task, *_):
        (task.folder / TASK_FILE).unlink() if is_removed else replaced(task)
        raise FileNotFoundError("The images have been removed.")

    monkeypatch.setattr(blocks, "_compute", compute)
    with pytest.raises(RunError) as error:
        run_part(task, "1/1")
    assert error.value.code == "task_replaced"


def test_markers_of_a_former_task_are_not_those_of_the_new_one(task):
    # The block had passed the last check before the task was replaced.
    new = replaced(task)
    marker = task.marker(PREDICT, 3)
    marker.parent.mkdir(parents=True)
    marker.touch()
    assert not new.has_begun
    assert new.left_blocks(PREDICT) == list(range(30))
    new.mark(PREDICT, 4)
    assert new.left_blocks(PREDICT) == [n for n in range(30) if n != 4]


def test_a_block_does_not_mark_a_folder_that_was_removed(task):
    (task.folder / TASK_FILE).unlink()
    before = content(task.folder)
    with pytest.raises(RunError):
        task.mark(PREDICT, 3)
    assert content(task.folder) == before


def test_a_task_of_an_earlier_version_is_read(tmp_path):
    step = CleaningStep(
        fills=True,
        classes=(1,),
        beneath=(0,),
        largest_only=False,
        min_size_px=3,
        max_hole_size_px="all",
    )
    plain = make_task(tmp_path / "mask.zarr.blocks", SHAPE, BLOCK)
    shutil.rmtree(plain.folder)
    task = replace(plain, min_size_px=5, cleanings=(step,))
    task.save()
    assert open_task(task.folder) == task
    values = json.loads((task.folder / TASK_FILE).read_text())
    values.pop(CHECKSUM)
    values["smallest_px"] = values.pop("min_size_px")
    (own,) = values["cleanings"]
    own["smallest_px"], own["largest_hole_px"] = own.pop("min_size_px"), own.pop("max_hole_size_px")
    write_sealed_json(task.folder / TASK_FILE, values)
    assert open_task(task.folder) == task


def test_remains_of_a_former_task_are_replaced(task, tmp_path):
    new = replace(task, folder=tmp_path / "new.blocks", token="new")
    for name in ("done/old/predict/000000/000000003", f"{FOUND}/pieces/000000/000000003.npz"):
        (new.folder / name).parent.mkdir(parents=True)
        (new.folder / name).touch()
    new.save()
    assert open_task(new.folder).token == "new"
    assert [path.name for path in new.folder.iterdir()] == [TASK_FILE]


def test_a_folder_with_other_files_is_refused_and_kept(task, tmp_path):
    own = tmp_path / "other.blocks" / "notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(RunError) as error:
        replace(task, folder=own.parent).save()
    assert error.value.code == "task_folder_occupied"
    assert own.read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_of_two_processes_that_save_a_task_the_first_one_wins(task):
    replace(task, token="second").save()
    assert open_task(task.folder).token == task.token


def partial_chunk(folder, name="3"):
    path = folder / "0" / "c" / f"{name}.{'0123456789abcdef' * 2}.partial"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"1")
    return path


def test_unfinished_chunks_are_removed_when_the_image_is_complete(task):
    left = [partial_chunk(one.path) for one in task.pyramids]
    other = left[0].with_name("notes.partial")
    other.touch()
    blocks_of(task, "1/1", count=29)
    assert all(path.exists() for path in left)  # Other processes are still writing.
    assert run_part(task, "1/1") == 0
    assert not any(path.exists() for path in left)
    assert other.exists()


def test_a_process_whose_unfinished_chunk_is_removed_goes_on(task, monkeypatch):
    """It computes a block for the second time while another process completes the image."""
    stage = task.stages[-1]
    list(map(partial(run_block, str(task.folder), task.token, "cpu", PIECES), range(30)))
    blocks._join(task, PIECES)
    rename, removed = Path.replace, []

    def remove_and_rename(path, target):
        if path.suffix == ".partial" and not removed:
            removed.append(path)
            monkeypatch.setattr(blocks, "_guard", blocks.threading.Lock())  # Another process.
            assert run_part(task, "1/1") == 0
            assert not path.exists()
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", remove_and_rename)
    result = run_block(str(task.folder), task.token, "cpu", stage, 0)
    assert removed
    assert result.pixels == 0
    assert task.is_complete(stage)
    assert not list(task.objects.path.rglob("*.partial"))


def test_an_error_of_the_disk_is_not_taken_for_a_removed_chunk(task, monkeypatch):
    def fail(*_):
        raise OSError("Input/output error")

    monkeypatch.setattr(blocks, "_compute", fail)
    with pytest.raises(OSError, match="Input/output"):
        run_block(str(task.folder), task.token, "cpu", PIECES, 0)
    assert 0 in task.left_blocks(PIECES)


def test_a_stage_that_is_closed_while_its_markers_are_counted_is_complete(task, monkeypatch):
    list(map(partial(run_block, str(task.folder), task.token, "cpu", PIECES), range(30)))
    glob = Path.glob

    def close_first(path, pattern):
        if pattern == "*/*":
            task.close(PIECES)
        return glob(path, pattern)

    monkeypatch.setattr(Path, "glob", close_first)
    assert task.left_blocks(PIECES) == []
