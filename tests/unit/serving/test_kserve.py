import json

import numpy as np
import pytest
from PIL import Image
from tritonclient.http import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
    InferResult,
)

import ushape


@pytest.fixture(scope="module")
def pixels(image):
    return np.asarray(Image.open(image))


@pytest.fixture(scope="module")
def expected(run, pixels):
    return ushape.load(run).predict(pixels)


def infer(client, array, *, datatype="UINT8", is_binary=True, outputs=(), shape=None):
    """Send what Triton's client sends, and parse the answer as it does."""
    tensor = InferInput("image", list(shape or array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=is_binary)
    wanted = [InferRequestedOutput(name, binary_data=is_binary) for name in outputs]
    body, length = InferenceServerClient.generate_request_body([tensor], outputs=wanted or None)
    headers = {"Inference-Header-Content-Length": str(length)} if length else {}
    answer = client("POST", "/v2/models/cells/infer", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    length = answer.headers.get("Inference-Header-Content-Length")
    return InferResult.from_response_body(answer.content, header_length=length and int(length))


@pytest.mark.parametrize("is_binary", [True, False])
def test_arrays_of_the_client_are_predicted(client, pixels, expected, is_binary):
    found = infer(
        client, pixels[None, None], is_binary=is_binary, outputs=("mask", "probabilities")
    )
    assert np.array_equal(found.as_numpy("mask")[0], expected.mask)
    assert found.as_numpy("probabilities")[0] == pytest.approx(expected.probabilities, abs=1e-6)


def test_batch_is_predicted_and_the_mask_is_the_default(client, pixels, expected):
    found = infer(client, np.stack([pixels, pixels[::-1]])[:, None])
    assert np.array_equal(found.as_numpy("mask")[0], expected.mask)
    assert found.as_numpy("mask").shape == (2, *pixels.shape)


@pytest.mark.parametrize(
    ("dtype", "datatype"), [(np.uint16, "UINT16"), (np.int32, "INT32"), (np.float32, "FP32")]
)
def test_other_types_give_the_same_mask(client, pixels, expected, dtype, datatype):
    found = infer(client, pixels.astype(dtype)[None, None], datatype=datatype)
    assert np.array_equal(found.as_numpy("mask")[0], expected.mask)


def test_batch_and_single_channel_may_be_omitted(client, pixels, expected):
    assert np.array_equal(infer(client, pixels).as_numpy("mask")[0], expected.mask)
    assert np.array_equal(infer(client, pixels[None]).as_numpy("mask")[0], expected.mask)


def test_metadata_follows_the_protocol(client):
    assert client("GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
    of_version = "/v2/models/cells/versions/1"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/cells/ready", of_version):
        assert client("GET", path).status_code == 200
    assert client("GET", "/v2/models/cells/versions/2").status_code == 404
    found = client("GET", "/v2/models/cells").json()
    assert found["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, -1, -1]}]
    assert [one["name"] for one in found["outputs"]] == ["mask", "probabilities"]


def request_of(**changes):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 2], "data": [1, 2, 3, 4]}
    return {"inputs": [{**tensor, **changes}]}


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        {"inputs": []},
        request_of(name="other"),
        request_of(datatype="BYTES"),
        request_of(shape=[1, 1, 2, 3]),
        request_of(shape=[1, 3, 2, 2]),
        request_of(shape=[1, 1, 1, 1, 4]),
        request_of(shape=[1, 1, 0, 2]),
        request_of(shape=[1, 1, -1, 4]),
        request_of(shape="abc"),
        request_of(data=["a", "b", "c", "d"]),
        request_of(data=[1, 2, 3, 400]),
        request_of(data=[1, 2, 3, 0.7]),
        request_of(data=["1", "2", "3", "4"]),
        request_of(data=[1, 2, 3, 1e39], datatype="FP32"),
        request_of(data=None),
        request_of(parameters={"binary_data_size": 4}),
        request_of(parameters=[]),
        {**request_of(), "outputs": [{"name": "other"}]},
        {**request_of(), "outputs": "mask"},
    ],
)
def test_invalid_requests_are_refused(client, values):
    answer = client("POST", "/v2/models/cells/infer", json=values)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_tensor")
    assert answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "99999", "1", "9" * 5000])
def test_invalid_header_lengths_are_refused(client, length):
    answer = client(
        "POST",
        "/v2/models/cells/infer",
        content=json.dumps(request_of()).encode(),
        headers={"Inference-Header-Content-Length": length},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_tensor")


def test_arrays_that_do_not_fit_into_memory_together_are_refused(start, pixels, monkeypatch):
    """A small image needs 2 bodies, 5 bytes for each pixel and channel, and 12 for each output."""
    body = InferInput("image", [1, 1, *pixels.shape], "UINT8")
    body.set_data_from_numpy(pixels[None, None])
    content, length = InferenceServerClient.generate_request_body(
        [body], outputs=[InferRequestedOutput("mask", binary_data=True)]
    )
    needed = 2 * len(content) + length // 2 * 80 + (5 + 12) * pixels.size
    for limit, status in ((needed, 200), (needed - 1, 503), (100, 413)):
        monkeypatch.setattr("ushape.serving.service.memory_limit_bytes", lambda _, own=limit: own)
        client = start()
        answer = client(
            "POST",
            "/v2/models/cells/infer",
            content=content,
            headers={"Inference-Header-Content-Length": str(length)},
        )
        assert answer.status_code == status, answer.text
        answer = client("POST", "/v2/models/cells/infer", json=request_of())
        assert answer.status_code == (413 if limit == 100 else 200)  # Nothing stays reserved.


def test_sizes_are_limited(start, client):
    huge = request_of(shape=[1, 1, 10**5, 10**5], parameters={"binary_data_size": 4})
    answer = client("POST", "/v2/models/cells/infer", json=huge)
    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
    answer = client("POST", "/v2/models/cells/infer", content=b"[" * (1 << 24) + b"[")
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    deep = client("POST", "/v2/models/cells/infer", content=b"[" * (1 << 20))
    assert deep.status_code == 400
    full = start(queue=1)
    both = request_of(shape=[2, 1, 2, 1])
    answer = full("POST", "/v2/models/cells/infer", json=both)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_images")
