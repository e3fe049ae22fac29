"""Routes of the KServe V2 protocol."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from ushape.errors import UshapeError
from ushape.serving import kserve
from ushape.serving.limits import ARRAY_BYTES
from ushape.serving.parts import Service, while_connected
from ushape.serving.refusals import Refusal, refusal_of
from ushape.serving.scheduler import Places, Task


def add_kserve(app: FastAPI, service: Service) -> None:
    """Add the routes of the KServe V2 protocol."""

    def require_model(request: Request) -> None:
        found = request.path_params["model"], request.path_params.get("version", kserve.VERSION)
        if found != (service.name, kserve.VERSION):
            raise Refusal(
                404, "unknown_model", "There is no such model.", "GET /metadata names it."
            )

    @app.get("/v2", description="KServe V2: metadata of the server.")
    async def server_metadata() -> JSONResponse:
        return JSONResponse(kserve.describe_server())

    @app.get("/v2/health/live", description="KServe V2: whether the server is running.")
    @app.get("/v2/health/ready", description="KServe V2: whether the server is ready.")
    async def kserve_health() -> JSONResponse:
        return JSONResponse({"live": True, "ready": True})

    one_version = "/v2/models/{model}/versions/{version}"

    @app.get(one_version, include_in_schema=False)
    @app.get("/v2/models/{model}", description="KServe V2: metadata of the model.")
    async def model_metadata(request: Request) -> JSONResponse:
        require_model(request)
        return JSONResponse(kserve.describe_tensors(service.name, service.predictor))

    @app.get(f"{one_version}/ready", include_in_schema=False)
    @app.get("/v2/models/{model}/ready", description="KServe V2: whether the model is ready.")
    async def model_ready(request: Request) -> JSONResponse:
        require_model(request)
        return JSONResponse({"name": service.name, "ready": True})

    @app.post(f"{one_version}/infer", include_in_schema=False)
    @app.post("/v2/models/{model}/infer", description="KServe V2: predict arrays.")
    async def infer(request: Request) -> Response:
        try:
            require_model(request)
            return await _infer(request, service)
        except (Refusal, UshapeError) as error:
            # Clients of the protocol show the entry `error`.
            refusal = refusal_of(error)
            refusal.extra = {"error": f"{refusal.message} {refusal.hint}".strip()}
            raise refusal from None


async def _infer(request: Request, service: Service) -> Response:
    length = request.headers.get(kserve.HEADER_LENGTH, "")
    stated = request.headers.get("content-length", "")
    places = Places(service.scheduler)
    try:
        places.require(1)
        with service.arrays.reserved(kserve.received_bytes(stated, length)):
            body = await _read_body(request)
            wanted = await asyncio.to_thread(
                kserve.parse_request,
                body,
                length,
                service.predictor,
                service.limits.max_unpacked_px,
            )
            with service.arrays.reserved(wanted.needed_bytes(service.predictor)):
                return await _answer(request, service, wanted, places)
    finally:
        places.release()


async def _read_body(request: Request) -> bytes:
    """Receive the body.

    Raises:
        Refusal: if it is larger than the limit for arrays.
    """
    parts, count = [], 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > ARRAY_BYTES:
            raise Refusal(
                413,
                "body_too_large",
                f"The request has more than {ARRAY_BYTES} bytes, the limit for arrays.",
                "Send the image as a file: POST /predict.",
            )
        parts.append(chunk)
    return b"".join(parts)


async def _answer(
    request: Request, service: Service, wanted: kserve.InferRequest, places: Places
) -> Response:
    """Predict the images of a request."""
    predictor = service.predictor
    pixels = wanted.images[0, 0].size
    tasks = [
        Task(partial(predictor.preprocess_array, image), lambda prediction: prediction, pixels)
        for image in wanted.images
    ]
    places.submit(tasks)
    try:
        together = asyncio.gather(*(asyncio.wrap_future(task.future) for task in tasks))
        waiting = asyncio.wait_for(together, service.limits.wait_s)
        predictions = await while_connected(request.receive, waiting)
    except TimeoutError:
        raise Refusal(504, "too_long", "The prediction takes too long.") from None
    finally:
        for task in tasks:
            task.cancel()
    service.metrics.add_pixels(pixels * len(tasks))
    content, headers = await asyncio.to_thread(
        kserve.build_answer, service.name, wanted, predictions, predictor
    )
    return Response(content, headers=headers)
