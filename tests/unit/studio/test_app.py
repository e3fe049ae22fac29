"""Routes of the studio, asked as the page asks them."""

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codes import raises_code
from studio_client import SHAPE, write_image, write_mask
from ushape.data.splits import Splits
from ushape.errors import DataError
from ushape.planning.run import Run
from ushape.studio.commands import _can_split, _first_training
from ushape.studio.jobs import Job
from ushape.studio.predictions import CLASSES, PROBABILITIES, SUMMARY
from ushape.types import CaseFacts


def picture(response):
    assert response.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(response.content)))


def tile(client, image_id, layer="image", level=0, x=0, y=0, **more):
    params = {"layer": layer, "level": level, "x": x, "y": y, **more}
    return client.get(f"/api/images/{image_id}/tile", params=params)


def store_prediction(client, image_id, shares):
    """Store a prediction of one class as the predicting process does, of a run without weights."""
    project = client.studio.project
    run = project.state / "runs" / "run-1"
    run.mkdir(parents=True, exist_ok=True)
    (run / "plan.json").write_text("{}")
    (run / "model.safetensors").write_bytes(b"")
    folder = project.runs.predictions_of(run) / image_id
    folder.mkdir(parents=True)
    np.save(folder / PROBABILITIES, shares[None])
    np.save(folder / CLASSES, (shares >= 128).astype(np.uint8))
    facts = {
        "shape": list(shares.shape),
        "is_exclusive": False,
        "classes": [1],
        "features": [0.0, 1.0],
        "uncertainty": 0.25,
        "expected_dice": 0.75,
    }
    (folder / SUMMARY).write_text(json.dumps(facts))


def ramp():
    """Probabilities that rise from left to right."""
    return np.tile(np.linspace(0, 255, SHAPE[1]).astype(np.uint8), (SHAPE[0], 1))


def test_state_lists_classes_and_what_changed(pairs, open_studio):
    client = open_studio(pairs)
    state = client.get("/api/state").json()
    assert [one["name"] for one in state["project"]["classes"]] == ["background", "foreground"]
    assert [one["value"] for one in state["project"]["classes"]] == [0, 255]
    client.edit(client.ids[1], "eraser", [8, 8], radius=2)
    changed = client.get("/api/state", params={"since": state["version"]}).json()
    assert changed["changed"] == [client.ids[1]]
    assert client.get("/api/state", params={"since": changed["version"]}).json()["changed"] == []


def test_images_are_listed_with_their_annotation(pairs, open_studio):
    write_image(pairs / "images" / "new.png", 9)
    client = open_studio(pairs)
    found = client.get("/api/images").json()
    assert [one["name"] for one in found] == ["0.png", "1.png", "2.png", "new.png"]
    assert [one["annotated"] for one in found] == [1, 1, 1, 0]
    assert [one["part"] for one in found] == ["train", "train", "train", "new"]
    assert found[0]["shape"] == list(SHAPE)
    assert client.get("/api/next").json()["id"] == found[3]["id"]


def test_folder_of_further_images_must_have_some(pairs, open_studio, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with raises_code(DataError, "no_images"):
            open_studio(pairs, tmp_path / name)
    write_image(tmp_path / "more" / "0.png", 5)
    assert len(open_studio(pairs, tmp_path / "more").ids) == 4


def test_further_masks_are_not_listed_as_images(pairs, open_studio):
    for number in range(3):
        write_mask(pairs / "fov" / f"{number}.png")
    client = open_studio(pairs)
    assert [one["name"] for one in client.get("/api/images").json()] == ["0.png", "1.png", "2.png"]


def test_tiles_show_image_and_mask(pairs, open_studio):
    client = open_studio(pairs)
    image = picture(tile(client, client.ids[0]))
    assert image.shape == SHAPE
    mask = picture(tile(client, client.ids[0], "mask"))
    assert mask.shape == (*SHAPE, 4)
    assert mask[5, 10, 3] == 255
    assert mask[0, 0, 3] == 0


def test_tile_of_a_mask_is_sent_again_only_if_it_changed(pairs, open_studio):
    client = open_studio(pairs)
    tag = tile(client, client.ids[0], "mask").headers["etag"]
    known = {"If-None-Match": tag}
    path = f"/api/images/{client.ids[0]}/tile?layer=mask&level=0&x=0&y=0"
    assert client.get(path, headers=known).status_code == 304
    client.edit(client.ids[0], "eraser", [10, 8], radius=2)
    assert client.get(path, headers=known).status_code == 200


def test_tiles_of_other_data_with_the_same_names_are_sent_again(tmp_path, open_studio):
    clients = []
    for number in range(2):
        write_image(tmp_path / str(number) / "images" / "a.png", number)
        write_mask(tmp_path / str(number) / "masks" / "a.png", number)
        clients.append(open_studio(tmp_path / str(number)))
    assert clients[0].ids == clients[1].ids
    for layer in ("image", "mask"):
        tag = tile(clients[0], clients[0].ids[0], layer).headers["etag"]
        path = f"/api/images/{clients[0].ids[0]}/tile?layer={layer}&level=0&x=0&y=0"
        assert clients[1].get(path, headers={"If-None-Match": tag}).status_code == 200


def test_image_that_was_replaced_is_sent_again(images, open_studio):
    client = open_studio(images)
    before = tile(client, client.ids[0])
    write_image(images / "images" / "0.png", 7)
    os.utime(images / "images" / "0.png", ns=(1, 1))
    path = f"/api/images/{client.ids[0]}/tile?layer=image&level=0&x=0&y=0"
    after = client.get(path, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert (picture(after) != picture(before)).any()


def test_predictions_of_two_runs_of_one_name_are_kept_apart(pairs, open_studio, tmp_path):
    project = open_studio(pairs).studio.project
    own = project.runs.predictions_of(project.state / "runs" / "run-1")
    others = {project.runs.predictions_of(tmp_path / name / "run-1") for name in "ab"}
    assert len({own, *others}) == 3


def test_levels_halve_the_image(tmp_path, open_studio):
    write_image(tmp_path / "a.png", shape=(300, 700))
    client = open_studio(tmp_path)
    assert client.get(f"/api/images/{client.ids[0]}").json()["levels"] == 3
    assert picture(tile(client, client.ids[0], level=0, x=2, y=1)).shape == (44, 188)
    assert picture(tile(client, client.ids[0], level=2)).shape == (75, 175)
    for level, x, y in ((3, 0, 0), (0, 3, 0), (0, 0, 2), (-1, 0, 0), (0, -1, 0), (99, 0, 0)):
        assert tile(client, client.ids[0], level=level, x=x, y=y).status_code == 422


def test_answer_of_an_edit_names_the_changed_box(pairs, open_studio):
    client = open_studio(pairs)
    answer = client.edit(client.ids[0], "brush", [3, 20], radius=1, edit_id="one").json()
    assert answer["revision"] == 1
    assert answer["box"] == [0, 0, *SHAPE]
    assert (answer["can_undo"], answer["can_redo"]) == (True, False)
    repeated = client.edit(client.ids[0], "brush", [3, 20], revision=0, radius=1, edit_id="one")
    assert (repeated.status_code, repeated.json()["revision"]) == (200, 1)


def test_second_window_with_an_old_revision_is_told_the_new_one(pairs, open_studio):
    client = open_studio(pairs)
    client.edit(client.ids[0], "eraser", [8, 8], revision=0, edit_id="one")
    answer = client.edit(client.ids[0], "eraser", [12, 8], revision=0, edit_id="two")
    assert (answer.status_code, answer.json()["revision"]) == (409, 1)
    undo = client.post(f"/api/images/{client.ids[0]}/undo", {"revision": 0, "edit_id": "three"})
    assert undo.status_code == 409


def test_undo_and_redo(pairs, open_studio):
    client = open_studio(pairs)
    before = picture(tile(client, client.ids[0], "mask"))
    client.edit(client.ids[0], "eraser", [10, 8], radius=3)
    after = picture(tile(client, client.ids[0], "mask"))
    path = f"/api/images/{client.ids[0]}"
    assert client.post(f"{path}/undo", {"revision": 1}).json()["can_redo"]
    assert (picture(tile(client, client.ids[0], "mask")) == before).all()
    client.post(f"{path}/redo", {"revision": 2})
    assert (picture(tile(client, client.ids[0], "mask")) == after).all()
    assert client.post(f"{path}/redo", {"revision": 3}).status_code == 422


@pytest.mark.parametrize(
    "change",
    [
        {"tool": "format"},
        {"points": [[1]]},
        {"points": "all"},
        {"points": [[1, 1e300]]},
        {"radius": -1},
        {"radius": 1e9},
        {"class": 255},
        {"revision": "x"},
        {"unknown": 1},
        {"edit_id": "x" * 1000},
    ],
)
def test_invalid_edit_is_refused(pairs, open_studio, change):
    client = open_studio(pairs)
    body = {"revision": 0, "tool": "brush", "points": [[1, 1]], "class": 1, **change}
    answer = client.post(f"/api/images/{client.ids[0]}/edit", body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"
    assert client.studio.project.annotation(client.ids[0]).revision == 0


def test_numbers_that_json_does_not_have_are_refused(pairs, open_studio):
    client = open_studio(pairs)
    content = '{"revision": 0, "tool": "brush", "points": [[NaN, 1]]}'
    for body in (content, content.replace("NaN", "Infinity"), "{", "", "[]", "\xff"):
        answer = client.ask("POST", f"/api/images/{client.ids[0]}/edit", content=body)
        assert answer.status_code == 400


def test_unknown_class_and_plane_are_refused(pairs, open_studio):
    client = open_studio(pairs)
    assert client.edit(client.ids[0], "brush", [1, 1], **{"class": 9}).status_code == 422
    assert client.edit(client.ids[0], "brush", [1, 1], plane="x").status_code == 422
    assert client.edit(client.ids[0], "brush", [1, 1], index=4).status_code == 422
    assert client.edit(client.ids[0], "brush", [900, 900]).json()["code"] == "edit_outside"


@pytest.mark.parametrize(
    "image_id", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "x" * 500, "..", "C:%5Cx"]
)
def test_ids_are_not_paths(pairs, open_studio, image_id):
    client = open_studio(pairs)
    assert client.get(f"/api/images/{image_id}").status_code == 404
    assert client.get(f"/api/images/{image_id}/tile?level=0&x=0&y=0").status_code == 404
    body = {"revision": 0, "tool": "clear"}
    assert client.post(f"/api/images/{image_id}/edit", body).status_code in (404, 405)


def test_wrong_methods_and_paths_are_refused(pairs, open_studio):
    client = open_studio(pairs)
    assert client.ask("PUT", "/api/state").json()["code"] == "wrong_method"
    assert client.get("/api/train").status_code == 405
    assert client.get("/api/none").json()["code"] == "not_found"
    assert client.get("/docs").status_code == 404
    assert client.get("/openapi.json").status_code == 404


def test_changes_need_the_header_and_the_own_page(pairs, open_studio):
    client = open_studio(pairs)
    path = f"/api/images/{client.ids[0]}/edit"
    body = {"revision": 0, "tool": "clear"}
    assert client.post(path, body, headers={}).json()["code"] == "header_missing"
    other = {"X-Ushape-Studio": "1", "Origin": "http://evil.example"}
    assert client.post(path, body, headers=other).status_code == 403
    own = {"X-Ushape-Studio": "1", "Origin": "http://127.0.0.1:8765"}
    assert client.post(path, body, headers=own).status_code == 200
    assert client.get("/api/state", headers={"Host": "evil.example"}).status_code == 421


def test_page_of_another_project_changes_nothing(tmp_path, open_studio):
    clients = []
    for number in range(2):
        write_image(tmp_path / str(number) / "a.png", number)
        clients.append(open_studio(tmp_path / str(number)))
    first, second = (one.get("/api/state").json()["project"]["id"] for one in clients)
    body = {"revision": 0, "tool": "background_rest"}
    path = f"/api/images/{clients[1].ids[0]}/edit"
    for project, status in ((first, 409), (second, 200)):
        headers = {"X-Ushape-Studio": "1", "X-Ushape-Project": project}
        assert clients[1].post(path, body, headers=headers).status_code == status


def test_annotation_that_cannot_be_opened_is_reported_at_the_start(images, open_studio):
    first = open_studio(images)
    image_id = first.ids[0]
    for place in (5, 15):
        first.edit(image_id, "brush", [place, 5], radius=2)
    first.studio.close()
    log = images / ".ushape_studio" / "annotations" / f"{image_id}.log"
    log.write_bytes(log.read_bytes().replace(b'"kind": "edit"', b'"kind": "edxt"', 1))
    problems = open_studio(images).get("/api/state").json()["project"]["problems"]
    assert [one.partition(":")[0] for one in problems] == ["0.png"]


def test_large_body_is_refused(pairs, open_studio):
    client = open_studio(pairs)
    answer = client.ask("POST", "/api/train", content=b"x" * (1 << 22))
    assert answer.status_code == 413


def test_page_is_protected_by_its_headers(pairs, open_studio):
    answer = open_studio(pairs).get("/")
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_layers_without_a_prediction_are_empty(pairs, open_studio):
    client = open_studio(pairs)
    for layer in ("prediction", "probability", "uncertainty", "error"):
        assert tile(client, client.ids[0], layer).status_code == 204


def test_layers_show_the_stored_prediction(pairs, open_studio):
    client = open_studio(pairs)
    first = client.ids[0]
    store_prediction(client, first, ramp())
    assert (picture(tile(client, first, "probability")) == ramp()).all()
    uncertainty = picture(tile(client, first, "uncertainty"))
    assert uncertainty[0, 0] == 0
    assert uncertainty[0, SHAPE[1] // 2] > 250
    for threshold in (0.25, 0.5, 0.75):
        shown = picture(tile(client, first, "prediction", threshold=threshold))[..., 3] > 0
        assert (shown == (ramp() / 255 >= threshold)).all()
    error = picture(tile(client, first, "error"))[..., 3] > 0
    truth = np.zeros(SHAPE, bool)
    truth[4:12, 6:20] = True
    assert (error == (truth != (ramp() >= 128))).all()
    described = {one["id"]: one for one in client.get("/api/images").json()}
    assert described[first]["expected_dice"] == 0.75
    assert client.get(f"/api/images/{first}").json()["has_prediction"]


def test_prediction_is_accepted_at_the_threshold_of_the_settings(images, open_studio):
    client = open_studio(images)
    store_prediction(client, client.ids[0], ramp())
    client.post("/api/settings", {"threshold": 0.75})
    client.edit(client.ids[0], "accept")
    annotation = client.studio.project.annotation(client.ids[0])
    labels = annotation.read_plane("z", 0, ((0, SHAPE[0]), (0, SHAPE[1])))
    assert (labels == (ramp() / 255 >= 0.75)).all()
    assert client.get("/api/state").json()["threshold"] == 0.75


def test_threshold_of_the_page_can_be_taken_back(images, open_studio):
    client = open_studio(images)
    client.post("/api/settings", {"threshold": 0.75})
    client.post("/api/settings", {"save": "separate"})
    assert client.get("/api/state").json()["threshold"] == 0.75
    client.post("/api/settings", {"threshold": None})
    assert client.get("/api/state").json()["threshold"] is None


def test_threshold_is_forgotten_once_another_model_is_trained(images, open_studio):
    client = open_studio(images)
    client.post("/api/settings", {"threshold": 0.75})
    for state, kept in (("failed", 0.75), ("done", None)):
        job = Job(kind="train", command=[], folder=str(images / "run"), state=state)
        client.studio._after_job(job)
        assert client.get("/api/state").json()["threshold"] == kept


def test_image_that_is_set_apart_is_annotated_without_a_prediction(images, open_studio):
    client = open_studio(images)
    first, second, third = client.ids
    store_prediction(client, first, ramp())
    store_prediction(client, second, ramp())
    assert client.post(f"/api/images/{first}/apart", {"apart": True}).json()["apart"]
    assert tile(client, first, "probability").status_code == 204
    assert client.edit(first, "accept").json()["code"] == "no_prediction"
    assert client.edit(first, "brush", [5, 5]).status_code == 200
    assert tile(client, first, "image").status_code == 200
    described = {one["id"]: one for one in client.get("/api/images").json()}
    assert (described[first]["part"], described[first]["expected_dice"]) == ("test", None)
    assert described[first]["rank"] is None
    assert {client.get("/api/next").json()["id"]} <= {second, third}
    assert tile(client, second, "probability").status_code == 200
    answer = client.post(f"/api/images/{second}/apart", {"apart": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "image_not_independent")
    client.post(f"/api/images/{first}/apart", {"apart": False})
    assert client.edit(first, "accept").status_code == 200


def test_accepted_image_cannot_be_set_apart(images, open_studio):
    client = open_studio(images)
    store_prediction(client, client.ids[0], ramp())
    assert client.edit(client.ids[0], "accept").status_code == 200
    answer = client.post(f"/api/images/{client.ids[0]}/apart", {"apart": True})
    assert answer.json()["code"] == "image_not_independent"


def store_run(client, number, image_ids, *, has_weights):
    """Store what a training writes before it begins."""
    project = client.studio.project
    run = Run(project.state / "runs" / f"run-{number}")
    facts = [CaseFacts(project.image(image_id).case, (5, 7)) for image_id in image_ids]
    run.folder.mkdir(parents=True)
    run.save_cases(project.folder, facts, "")
    names = [fact.case.id for fact in facts]
    Splits(train=names, validation=[], test=[], text="").save(run.splits_path)
    (run.folder / "plan.json").write_text("{}")
    if has_weights:
        run.weights_path.write_bytes(b"")


def test_image_that_any_run_was_trained_on_cannot_be_set_apart(pairs, open_studio):
    client = open_studio(pairs)
    first, second, third = client.ids
    store_run(client, 1, [first], has_weights=True)
    store_run(client, 2, [second], has_weights=True)
    store_run(client, 3, [third], has_weights=False)  # It is running.
    for image_id in client.ids:
        answer = client.post(f"/api/images/{image_id}/apart", {"apart": True})
        assert answer.json()["code"] == "image_not_independent"


@pytest.mark.parametrize("is_copied", [False, True])
def test_moved_data_keep_what_runs_were_trained_on(pairs, open_studio, is_copied):
    client = open_studio(pairs)
    first, second, _ = client.ids
    store_run(client, 1, [first, second], has_weights=True)
    client.studio.project.store()
    client.studio.close()
    moved = pairs.with_name("moved")
    if is_copied:
        shutil.copytree(pairs, moved)
    else:
        pairs.rename(moved)
    again = open_studio(moved)
    again.studio.project.store()
    again.studio.close()
    third = open_studio(moved.rename(moved.with_name("moved again")))
    assert third.studio.project.parts.of(first) == "train"
    answer = third.post(f"/api/images/{second}/apart", {"apart": True})
    assert answer.json()["code"] == "image_not_independent"


def test_training_after_a_stopped_one_keeps_its_test_images(pairs, open_studio, monkeypatch):
    monkeypatch.setattr("ushape.studio.commands.ENOUGH_MASKS", 2)
    studio = open_studio(pairs).studio
    assert _first_training(studio.project, pairs / "run", 1) is not None
    studio.project.settings.test = [*studio.project.images][:1]
    assert _first_training(studio.project, pairs / "run", 1) is None
    assert not _can_split(studio.project)


def test_image_cannot_be_set_apart_while_a_training_reads_the_images(pairs, open_studio):
    client = open_studio(pairs)
    folder = client.studio.project.runs.new_folder()
    client.studio.jobs.job = Job("train", [], str(folder))
    path = f"/api/images/{client.ids[0]}/apart"
    assert client.post(path, {"apart": True}).json()["code"] == "job_running"
    client.studio.jobs.job.state = "done"
    assert client.post(path, {"apart": True}).status_code == 200


def test_image_without_mask_is_kept_for_the_score_with_its_group(
    tmp_path, open_studio, monkeypatch
):
    groups = {}
    for patient in range(3):
        for number in range(3):
            place = f"p{patient}/{number}.png"
            groups[write_image(tmp_path / "images" / place, 9 * patient + number)] = f"P{patient}"
            if number < 2:
                write_mask(tmp_path / "masks" / place, number)
    client = open_studio(tmp_path)
    project = client.studio.project
    known = {path: group for path, group in groups.items() if path.stem != "2"}
    parts = {path: {"P0": "train", "P1": "test"}.get(group, "new") for path, group in known.items()}
    monkeypatch.setattr(project.runs, "groups", lambda: known)
    monkeypatch.setattr(project.runs, "parts", lambda: parts)
    monkeypatch.setattr(
        project.runs, "trained", lambda: {path for path, part in parts.items() if part == "train"}
    )
    ids = {project.name(image_id): image_id for image_id in client.ids}
    assert client.edit(ids["p1/2.png"], "brush", [5, 5]).status_code == 423
    assert client.edit(ids["p0/2.png"], "brush", [5, 5]).status_code == 200
    assert ids["p1/2.png"] not in [one.id for one in client.studio.suggestions()]
    assert client.post(f"/api/images/{ids['p0/2.png']}/apart", {"apart": True}).status_code == 409
    assert client.post(f"/api/images/{ids['p2/2.png']}/apart", {"apart": True}).status_code == 200
    assert {ids[f"p2/{number}.png"] for number in range(3)} == set(project.settings.apart)
    client.post(f"/api/images/{ids['p2/0.png']}/apart", {"apart": False})
    assert project.settings.apart == []


def test_images_without_masks_in_a_test_folder_are_locked(tmp_path, open_studio):
    for part in ("train", "test"):
        for number in range(3):
            write_image(tmp_path / part / "images" / f"{number}.png", number)
            if number < 2:
                write_mask(tmp_path / part / "masks" / f"{number}.png", number)
    found = open_studio(tmp_path).get("/api/images").json()
    assert {one["name"] for one in found if one["locked"]} == {
        f"test/images/{number}.png" for number in range(3)
    }


def test_test_images_of_the_data_are_locked(tmp_path, open_studio):
    for part in ("train", "test"):
        for number in range(2):
            write_image(tmp_path / "images" / part / f"{number}.png", number)
            write_mask(tmp_path / "masks" / part / f"{number}.png", number)
    client = open_studio(tmp_path)
    found = client.get("/api/images").json()
    assert {one["name"]: one["locked"] is not None for one in found} == {
        "test/0.png": True,
        "test/1.png": True,
        "train/0.png": False,
        "train/1.png": False,
    }
    test = next(one["id"] for one in found if one["locked"])
    assert client.edit(test, "brush", [5, 5]).status_code == 423
    assert client.post(f"/api/images/{test}/undo", {"revision": 0}).status_code == 423
    client.post(f"/api/images/{test}/apart", {"apart": True})
    assert client.edit(test, "brush", [5, 5]).status_code == 423
    client.post(f"/api/images/{test}/apart", {"apart": False})
    assert client.edit(test, "brush", [5, 5]).status_code == 423
    assert tile(client, test, "error").status_code == 204
    assert tile(client, test, "image").status_code == 200


def test_first_image_is_suggested_by_its_appearance(images, open_studio):
    client = open_studio(images)
    client.studio.wait_for_appearance(60)
    found = client.get("/api/next").json()
    assert found["id"] in client.ids
    assert found["reason"] != "Next image in the list."
    ranks = [one["rank"] for one in client.get("/api/images").json()]
    assert sorted(ranks) == [1, 2, 3]


def test_classes_are_renamed_and_added(images, open_studio):
    client = open_studio(images)
    classes = [{"index": 1, "name": "cell"}, {"name": "nucleus", "color": "#123456"}]
    assert client.post("/api/settings", {"classes": classes}).status_code == 200
    found = client.get("/api/state").json()["project"]["classes"]
    assert [one["name"] for one in found] == ["background", "cell", "nucleus"]
    assert (found[2]["color"], found[2]["value"]) == ("#123456", 2)
    repeated = client.post("/api/settings", {"classes": [{"name": "cell"}]})
    assert repeated.json()["code"] == "class_names_repeated"


def shown_classes(client):
    return [
        (one["index"], one["name"]) for one in client.get("/api/state").json()["project"]["classes"]
    ]


def test_a_class_that_no_annotation_uses_can_be_removed(images, open_studio):
    client = open_studio(images)
    client.post("/api/settings", {"classes": [{"name": "cell"}, {"name": "debris"}]})
    client.edit(client.ids[0], "brush", [5, 5], **{"class": 3})
    assert client.post("/api/settings", {"removed": [1, 2]}).status_code == 200
    assert shown_classes(client) == [(0, "background"), (3, "debris")]
    config = client.studio.project.label_config()
    assert (config.values, config.names) == ((0, 3), ("background", "debris"))
    assert client.edit(client.ids[0], "brush", [9, 9], **{"class": 1}).status_code == 422
    # Neither its index nor its value is used again, but its name is.
    client.post("/api/settings", {"classes": [{"name": "cell"}]})
    assert shown_classes(client)[-1] == (4, "cell")
    client.studio.close()
    again = open_studio(images)
    assert shown_classes(again) == [(0, "background"), (3, "debris"), (4, "cell")]


def test_a_class_that_annotations_use_is_not_removed(images, open_studio):
    client = open_studio(images)
    client.post("/api/settings", {"classes": [{"name": "cell"}]})
    for image_id in client.ids[:2]:
        client.edit(image_id, "brush", [5, 5], **{"class": 2})
    before = client.get("/api/state").json()["project"]
    body = {"removed": [1, 2], "classes": [{"name": "other"}]}
    answer = client.post("/api/settings", {"removed": [2], "classes": [{"name": "other"}]})
    assert (answer.status_code, answer.json()["code"]) == (422, "class_in_use")
    assert "2 images are annotated with it" in answer.json()["message"]
    assert client.get("/api/state").json()["project"] == before
    for removed, code in [([0], "class_needed"), ([1, 2], "class_needed"), ([7], "unknown_class")]:
        answer = client.post("/api/settings", {**body, "removed": removed})
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert client.get("/api/state").json()["project"] == before


def test_a_class_of_masks_that_were_not_opened_is_not_removed(pairs, open_studio):
    client = open_studio(pairs)
    client.post("/api/settings", {"classes": [{"name": "border"}]})
    answer = client.post("/api/settings", {"removed": [1]})
    assert answer.json()["code"] == "class_in_use"
    assert f"{len(client.ids)} images" in answer.json()["message"]


def test_a_removed_class_returns_if_its_pixels_do(images, open_studio):
    client = open_studio(images)
    client.post("/api/settings", {"classes": [{"name": "cell"}]})
    client.edit(client.ids[0], "brush", [5, 5], **{"class": 2})
    client.post(f"/api/images/{client.ids[0]}/undo", {"revision": 1})
    client.post("/api/settings", {"removed": [2]})
    assert [index for index, _ in shown_classes(client)] == [0, 1]
    client.post(f"/api/images/{client.ids[0]}/redo", {"revision": 2})
    assert [index for index, _ in shown_classes(client)] == [0, 1, 2]


def test_an_undone_edit_is_named(images, open_studio):
    client = open_studio(images)
    first = client.ids[0]
    client.edit(first, "brush", [5, 5])
    client.edit(first, "background_rest")
    for revision, kind, tool in [(2, "undo", "background_rest"), (3, "undo", "brush")]:
        answer = client.post(
            f"/api/images/{first}/{kind}", {"revision": revision, "edit_id": f"{kind} {revision}"}
        )
        assert answer.json()["tool"] == tool
    repeated = client.post(f"/api/images/{first}/undo", {"revision": 3, "edit_id": f"undo {3}"})
    assert repeated.json()["tool"] == "brush"  # The answer was lost, and the request sent again.
    client.studio.close()
    client = open_studio(images)  # The log has the tools.
    answer = client.post(f"/api/images/{first}/redo", {"revision": 4})
    assert answer.json()["tool"] == "brush"


def test_refused_classes_change_nothing(images, open_studio):
    client = open_studio(images)
    before = client.get("/api/state").json()
    for index, name, code in [
        (-3, "cell", "unknown_class"),
        (2, "cell", "unknown_class"),
        (1, "background", "class_names_repeated"),
    ]:
        body = {"threshold": 0.9, "classes": [{"index": index, "name": name, "color": "#ffffff"}]}
        answer = client.post("/api/settings", body)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert client.get("/api/state").json() == before


def test_added_class_gets_a_value_that_the_masks_do_not_have(pairs, open_studio):
    client = open_studio(pairs)
    client.post("/api/settings", {"classes": [{"name": "border"}], "save": "replace"})
    found = client.get("/api/state").json()["project"]["classes"]
    assert found[2]["value"] not in (0, 255)
    assert client.edit(client.ids[0], "brush", [2, 2], **{"class": 2}).status_code == 200


def test_settings_of_other_kinds_are_refused(pairs, open_studio):
    client = open_studio(pairs)
    for body in ({"save": "delete"}, {"threshold": 2}, {"classes": [{}]}, {"path": "/"}):
        assert client.post("/api/settings", body).status_code == 400


def test_training_without_annotation_is_refused(images, open_studio):
    client = open_studio(images)
    answer = client.post("/api/train", {"minutes": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "nothing_annotated")
    assert client.post("/api/train", {"again": True}).json()["code"] == "no_run"
    assert client.post("/api/train", {"resume": True}).json()["code"] == "nothing_to_resume"
    assert client.post("/api/predict").json()["code"] == "no_run"
    assert client.post("/api/train", {"minutes": 0}).status_code == 400
    assert client.get("/api/report").status_code == 404


def test_training_on_masks_of_which_the_user_must_decide_is_refused(pairs, open_studio):
    client = open_studio(pairs)
    client.edit(client.ids[0], "eraser", [10, 8])
    answer = client.post("/api/train", {"minutes": 1})
    assert (answer.status_code, answer.json()["code"]) == (409, "save_undecided")


def test_why_there_is_no_plan_is_an_answer_and_not_an_error(images, open_studio):
    client = open_studio(images)
    client.edit(client.ids[0], "brush", [5, 5], radius=2)
    answer = client.get("/api/plan")
    assert answer.status_code == 200
    assert answer.json()["lines"] == []
    assert "Also mark some background" in answer.json()["problem"]


def test_image_that_cannot_be_read_is_explained(images, open_studio):
    (images / "images" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    client = open_studio(images)
    found = client.get("/api/images").json()
    assert found[1]["shape"] == []
    answer = client.get(f"/api/images/{client.ids[1]}")
    assert (answer.status_code, answer.json()["code"]) == (422, "damaged_file")
    assert client.edit(client.ids[0], "brush", [5, 5]).status_code == 200


def test_check_and_plan_read_masks_as_they_were_saved(images, open_studio, monkeypatch):
    client = open_studio(images)
    client.edit(client.ids[0], "brush", [5, 5], radius=2)
    client.studio.project.saver.flush()
    started = []
    monkeypatch.setattr(client.studio.jobs, "start", lambda kind, command: started.append(command))
    client.studio.check()
    assert "labels.ignore=255" in started[0]
    assert "labels.values=[0, 1]" in started[0]
    assert "split.test_fraction=0" in started[0]


def test_plan_is_that_of_the_training_which_the_button_starts(images, open_studio, monkeypatch):
    client = open_studio(images)
    first, second = client.ids[:2]
    client.edit(first, "brush", [5, 5], radius=2)
    client.edit(second, "brush", [5, 5], radius=2)
    client.post(f"/api/images/{second}/undo", {"revision": 1})  # Nothing of it is annotated.
    started, planned = [], []
    studio = client.studio
    monkeypatch.setattr(studio.jobs, "start", lambda kind, command, **rest: started.append(command))

    def run(command, **options):
        planned.append(command[3:])
        return subprocess.CompletedProcess(command, 0, "A plan.\n", "")

    monkeypatch.setattr("ushape.studio.session.subprocess.run", run)
    answer = client.get("/api/plan", params={"minutes": 2})
    assert answer.json() == {"lines": ["A plan."], "problem": None}
    studio.train(2, again=False, resume=False)
    command, plan = started[0], planned[0]
    assert (command[0], plan[0]) == ("train", "plan")
    tables = [Path(own[1]).read_text() for own in (command, plan)]
    assert tables[0] == tables[1]
    assert tables[0].count(",train\n") == 1
    place = command.index("-o")
    assert plan[place + 2 : -2] == command[place + 2 :]
    assert plan[-2:] == ["--explain", "--overwrite"]
