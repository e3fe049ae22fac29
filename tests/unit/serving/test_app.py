import asyncio
import io
import json
import re
import threading
import time
import zipfile

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

import ushape
from ushape.serving import jobs as jobs_module
from ushape.serving.outputs import MEDIA_TYPES


@pytest.fixture(scope="module")
def expected(run, data, tmp_path_factory):
    """Files that `ushape predict` writes for the images of the data."""
    folder = tmp_path_factory.mktemp("expected")
    ushape.predict(
        run,
        data / "images",
        output=folder,
        overlay=True,
        contours="geojson",
        table=True,
        instances=True,
        probabilities="tif",
        probability_type="float32",
        device="cpu",
        quiet=True,
    )
    return folder


@pytest.mark.parametrize(
    ("form", "ending"),
    [
        ("mask", ".png"),
        ("overlay", "_overlay.png"),
        ("geojson", ".geojson"),
        ("table", "_objects.csv"),
        ("instances", "_instances.tif"),
        ("probabilities", "_probabilities.tif"),
    ],
)
def test_answer_equals_the_file_of_the_command(client, image, expected, form, ending):
    answer = client.predict(image, form=form)
    assert answer.status_code == 200, answer.text
    content = (expected / f"{image.stem}{ending}").read_bytes()
    if form == "geojson":
        names = [re.sub(rb'"id": ?"[^"]*"', b"", one) for one in (answer.content, content)]
        assert names[0] == names[1]
    elif ending.endswith(".tif"):
        arrays = [tifffile.imread(io.BytesIO(one)) for one in (answer.content, content)]
        assert np.array_equal(*arrays)
    else:
        assert answer.content == content
    assert f'filename="{image.stem}{ending}"' in answer.headers["content-disposition"]
    assert answer.headers["content-type"] == MEDIA_TYPES[ending[ending.index(".") :]]
    assert 0 <= float(answer.headers["x-confidence"]) <= 1
    assert list(client.folder.glob("[!.]*")) == []


def test_mask_as_tiff_has_the_same_values(client, image, expected):
    answer = client.predict(image, form="tiff")
    mask = np.asarray(Image.open(expected / image.name))
    assert np.array_equal(tifffile.imread(io.BytesIO(answer.content)), mask)
    assert answer.headers["content-type"] == "image/tiff"


def test_several_images_are_answered_with_a_zip(client, data, expected):
    images = sorted((data / "images").iterdir())
    answer = client.predict(*images)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        names = packed.namelist()
        assert names == [f"{number:02d}_{one.name}" for number, one in enumerate(images, start=1)]
        for name, one in zip(names, images, strict=True):
            assert packed.read(name) == (expected / one.name).read_bytes()
    assert list(client.folder.glob("[!.]*")) == []


def test_images_of_one_shape_share_a_batch(client, data):
    images = sorted((data / "images").iterdir())
    assert client.predict(*images).status_code == 200
    text = client("GET", "/metrics").text
    batches, images_sum = (
        float(re.search(rf"^ushape_batch_images_{name} (\S+)$", text, re.M)[1])
        for name in ("count", "sum")
    )
    assert images_sum == 4
    assert batches <= 4


def test_large_image_is_predicted_in_parts_with_the_same_result(client, monkeypatch, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 90), np.uint8)
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, pixels)
    whole = client.predict(path, form="tiff")
    monkeypatch.setattr("ushape.serving.outputs.IN_MEMORY_BYTES", 1)
    parts = client.predict(path, form="tiff")
    assert "x-confidence" not in parts.headers
    masks = [tifffile.imread(io.BytesIO(one.content)) for one in (whole, parts)]
    assert np.mean(masks[0] == masks[1]) > 0.999
    as_mask = client.predict(path)  # PNG cannot be written in parts.
    assert as_mask.headers["content-type"] == "image/tiff"
    numbers = client.predict(path, form="instances")
    assert re.search(r'filename="?large_instances\.tif', numbers.headers["content-disposition"])
    found = tifffile.imread(io.BytesIO(numbers.content))
    np.testing.assert_array_equal(found > 0, masks[1] > 0)
    outlines = client.predict(path, form="geojson").json()["features"]
    assert len(outlines) == found.max() > 0
    monkeypatch.setattr("ushape.serving.outputs.MAX_IN_MEMORY_BYTES", 1)
    refused = client.predict(path, form="overlay")
    assert (refused.status_code, refused.json()["code"]) == (413, "image_too_large")
    assert list(client.folder.glob("[!.]*")) == []


def test_image_that_does_not_fit_into_memory_is_refused(start, image, monkeypatch, tmp_path):
    monkeypatch.setattr("ushape.serving.memory.MAX_SHARE", 1e-9)
    client = start()
    answer = client.predict(image)
    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
    assert list(client.folder.glob("[!.]*")) == []


def save(path, pixels):
    if path.suffix in (".npy", ".npz"):
        (np.savez if path.suffix == ".npz" else np.save)(path, pixels)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels, compression="lzw")
    elif path.suffix in (".nii", ".gz", ".nrrd", ".mha", ".dcm"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels), path)
    else:
        Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    "suffix",
    [".bmp", ".pgm", ".tif", ".npy", ".npz", ".nii", ".nii.gz", ".nrrd", ".mha", ".dcm"],
)
def test_formats_are_recognized_by_their_content(client, image, expected, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    save(path, np.asarray(Image.open(image)))
    name = path.name if suffix in (".nii.gz", ".npz") else "unknown"
    files = [("image", (name, path.read_bytes()))]
    answer = client("POST", "/predict", files=files)
    assert answer.status_code == 200, answer.text
    assert answer.content == (expected / image.name).read_bytes()


def test_job_is_followed_fetched_and_removed(client, image, expected):
    answer = client.predict(image, wait=False)
    assert answer.status_code == 202
    place = answer.headers["location"]
    deadline = time.monotonic() + 60
    while (state := client("GET", place).json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (state["state"], state["progress"], state["images"]) == ("done", 1.0, 1)
    for _ in range(2):
        result = client("GET", state["result"])
        assert result.content == (expected / image.name).read_bytes()
    assert client("DELETE", place).status_code == 204
    assert client("GET", place).json()["code"] == "unknown_job"
    assert list(client.folder.glob("[!.]*")) == []


def test_kept_results_do_not_stop_other_requests(start, image):
    client = start(queue=1)
    places = []
    for _ in range(jobs_module.KEPT_JOBS):
        places.append(client.predict(image, wait=False).headers["location"])
        deadline = time.monotonic() + 60
        while client("GET", places[-1]).json()["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.01)
    full = client.predict(image, wait=False)
    assert (full.status_code, full.json()["code"]) == (429, "results_full")
    assert client.predict(image).status_code == 200
    assert client("GET", f"{places[1]}/result").status_code == 200
    assert client.predict(image, wait=False).status_code == 202
    assert client("GET", places[0]).status_code == 200
    assert client("GET", places[1]).status_code == 404


def test_failed_job_says_why(client, tmp_path):
    path = tmp_path / "color.npy"
    np.save(path, np.zeros((8, 8, 8, 8), np.uint8))
    place = client.predict(path, wait=False).headers["location"]
    deadline = time.monotonic() + 60
    while (state := client("GET", place).json())["state"] != "failed":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert state["error"]["code"]
    assert client("GET", f"{place}/result").status_code == 422


def test_result_expires(start, image, monkeypatch):
    monkeypatch.setattr(jobs_module, "KEPT_S", 0.0)
    client = start()
    place = client.predict(image, wait=False).headers["location"]
    deadline = time.monotonic() + 60
    while client("GET", place).status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(client.folder.glob("[!.]*")) == []


@pytest.fixture
def blocked(predictor, monkeypatch):
    """An event until which the network computes nothing."""
    released = threading.Event()
    compute = type(predictor).predict

    def predict(self, images):
        assert released.wait(60)
        return compute(self, images)

    monkeypatch.setattr(type(predictor), "predict", predict)
    yield released
    released.set()


def test_slow_prediction_and_full_queue_are_refused(start, image, blocked):
    client = start(wait_s=0.05, queue=1)
    late = client.predict(image)
    assert (late.status_code, late.json()["code"]) == (504, "too_long")
    full = client.predict(image)
    assert (full.status_code, full.json()["code"]) == (429, "queue_full")
    assert full.headers["retry-after"]
    blocked.set()
    deadline = time.monotonic() + 60
    while client.predict(image).status_code == 429:
        assert time.monotonic() < deadline
    client.runner.run(wait_until_empty(client.folder))


async def wait_until_empty(folder):
    deadline = time.monotonic() + 60
    while list(folder.glob("[!.]*")):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_job_can_be_stopped_while_it_waits(start, image, blocked):
    client = start()
    places = [client.predict(image, wait=False).headers["location"] for _ in range(2)]
    assert client.gate.is_busy()
    for place in places:
        assert client("GET", f"{place}/result").json()["code"] == "not_done"
        assert client("DELETE", place).status_code == 204
    blocked.set()
    client.runner.run(wait_until_empty(client.folder))
    assert not client.gate.is_busy()


def test_requests_without_a_token_are_refused(start, image):
    client = start(token="a-long-enough-token", hosts=None)
    for path in ("/metadata", "/metrics", "/v2", "/jobs/1"):
        assert client("GET", path).status_code == 401
    assert client.predict(image).status_code == 401
    for path in ("/", "/health", "/openapi.json", "/v2/health/ready"):
        assert client("GET", path, host="model.example").status_code == 200
    headers = {"Authorization": "Bearer a-long-enough-token"}
    assert client("GET", "/metadata", headers=headers).status_code == 200


def test_metadata_describes_the_model(client, run):
    found = client("GET", "/metadata").json()
    assert found["name"] == run.name
    assert [one["value"] for one in found["classes"]] == [0, 255]
    assert (found["channels"], found["dimensions"]) == (1, 2)
    assert found["scores"] == [None]
    assert str(run.parent) not in json.dumps(found)


def test_page_and_schema_list_all_requests_and_load_nothing(client):
    schema = client("GET", "/openapi.json").json()
    page = client("GET", "/")
    for path in schema["paths"]:
        assert f" {path}</code>" in page.text
    assert {"/predict", "/health", "/metadata", "/metrics", "/v2/models/{model}/infer"} <= set(
        schema["paths"]
    )
    assert not re.search(r"(src|href)=\"?(https?:)?//", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "unknown_path"),
        ("GET", "/predict", 405, "wrong_method"),
        ("GET", "/../../etc/passwd", 404, "unknown_path"),
        ("POST", "/predict?form=other", 400, "invalid_parameter"),
        ("POST", "/predict?wait=perhaps", 400, "invalid_parameter"),
        ("GET", "/jobs/unknown", 404, "unknown_job"),
        ("GET", "/v2/models/other", 404, "unknown_model"),
    ],
)
def test_other_requests_are_refused(client, method, path, status, code):
    answer = client(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert set(answer.json()) >= {"code", "message", "hint"}


def test_other_host_names_are_refused(client):
    assert client("GET", "/health", host="evil.example").json()["code"] == "wrong_host"
