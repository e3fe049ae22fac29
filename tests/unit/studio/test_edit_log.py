"""Records of an annotation in a file."""

import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.studio.edit_log import EditLog, PackedTile, Stored

FIRST = PackedTile((0, 0, 0), b"first tile", known_px=3, numbers=(2, 5))
SECOND = PackedTile((0, 1, 0), b"second", known_px=0)


def replay(path):
    return [(record["kind"], record.get("id"), tiles) for record, tiles in EditLog(path).records()]


def test_records_are_replayed_with_their_tiles(tmp_path):
    log = EditLog(tmp_path / "a.log")
    log.append({"kind": "base", "origin": "m.png"})
    stored = log.append({"kind": "edit", "id": "a"}, [FIRST, SECOND])
    log.append({"kind": "undo", "id": "b"})
    assert replay(log.path) == [("base", None, {}), ("edit", "a", stored), ("undo", "b", {})]
    assert [log.read(one) for one in stored.values()] == [b"first tile", b"second"]
    start = stored[0, 0, 0].offset
    assert stored[0, 0, 0] == Stored(start, 10, 3, (2, 5))
    assert stored[0, 1, 0] == Stored(start + 10, 6, 0, ())


@pytest.mark.parametrize("kinds", [["undo"], ["redo"], ["edit", "undo", "undo"], ["edit", "redo"]])
def test_step_without_an_edit_is_dropped_at_the_end_and_reported_elsewhere(tmp_path, kinds):
    log = EditLog(tmp_path / "a.log")
    for kind in kinds:
        log.append({"kind": kind, "id": kind})
    assert [kind for kind, _, _ in replay(log.path)] == kinds[:-1]
    log.append({"kind": "edit", "id": "last"})
    with raises_code(DataError, "damaged_studio_state"):
        replay(log.path)


def test_redo_follows_an_undo_but_not_a_new_edit(tmp_path):
    log = EditLog(tmp_path / "a.log")
    for kind in ("edit", "edit", "undo", "undo", "redo", "edit", "redo"):
        log.append({"kind": kind, "id": kind})
    assert len(replay(log.path)) == 6


def test_rest_of_an_incomplete_record_is_removed_before_the_next_one(tmp_path):
    log = EditLog(tmp_path / "a.log")
    log.append({"kind": "edit", "id": "a"}, [FIRST])
    kept = log.path.read_bytes()
    log.path.write_bytes(kept + b'{"kind": "edit", "id"')
    reopened = EditLog(log.path)
    assert len(list(reopened.records())) == 1
    reopened.drop_rest()
    assert log.path.read_bytes() == kept
    reopened.append({"kind": "undo", "id": "b"})
    assert len(replay(log.path)) == 2
