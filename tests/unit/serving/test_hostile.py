import json

import numpy as np
import pytest

import hostile


def send(client, body, kind=hostile.FORM_TYPE):
    return client("POST", "/predict", content=body, headers={"Content-Type": kind} if kind else {})


def check_refusal(client, answer):
    assert 400 <= answer.status_code < 500, answer.text
    found = answer.json()
    assert found["code"] not in ("", "internal_error")
    text = json.dumps(found)
    assert str(client.folder) not in text
    assert "/tmp" not in text
    assert "Traceback" not in text
    assert list(client.folder.glob("[!.]*")) == []


@pytest.mark.parametrize("name", hostile.FILES)
def test_hostile_files_are_refused(client, name, caplog):
    content, file_name = hostile.FILES[name]
    check_refusal(client, send(client, hostile.form(hostile.part(content, file_name))))
    assert [one for one in caplog.records if one.name.startswith("ushape")] == []


@pytest.mark.parametrize("name", hostile.BODIES)
def test_hostile_forms_are_refused(client, name, caplog):
    check_refusal(client, send(client, *hostile.BODIES[name]))
    assert [one for one in caplog.records if one.name.startswith("ushape")] == []


@pytest.mark.parametrize("name", hostile.NAMES)
def test_names_of_files_do_not_matter(client, name):
    answer = send(client, hostile.form(hostile.part(hostile.png(hostile.NOISE), name)))
    if answer.status_code != 200:  # A quotation mark or a line end makes the form invalid.
        return check_refusal(client, answer)
    shown = answer.headers["content-disposition"].partition("filename=")[2].strip('"')
    assert shown.replace("_", "").replace("-", "").replace(".", "").isalnum()
    assert list(client.folder.glob("[!.]*")) == []
    return None


def test_image_of_nan_is_predicted_or_refused(client):
    content = hostile.tiff(np.full((20, 20), np.nan, np.float32))
    answer = send(client, hostile.form(hostile.part(content, "x.tif")))
    if answer.status_code == 200:
        assert answer.headers["x-missing-pixels"] == "400"
    else:
        check_refusal(client, answer)


def test_there_are_at_least_40_hostile_requests():
    assert len(hostile.FILES) + len(hostile.BODIES) >= 40
