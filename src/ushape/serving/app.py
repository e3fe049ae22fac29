"""Routes of the server: REST, KServe V2, health, metadata, metrics and a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NoReturn, get_args

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from ushape._version import __version__
from ushape.errors import plain_finding
from ushape.serving.kserve_routes import add_kserve
from ushape.serving.metrics import Metrics
from ushape.serving.outputs import Answer, Form
from ushape.serving.page import content_policy, render_page
from ushape.serving.parts import Service, while_connected
from ushape.serving.refusals import Refusal
from ushape.serving.safety import App, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/", "/openapi.json", "/health", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no token: they tell nothing about the model."""

VITAL_PATHS = frozenset({"/health", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Paths that are answered quickly, and also if too many requests are in progress."""

FORM_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {"type": "array", "items": {"type": "string", "format": "binary"}}
                },
            }
        }
    },
}
"""OpenAPI description of the form with the images."""

ERROR = {
    "description": "The request was rejected: code, message and hint.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("code", "message", "hint")},
            }
        }
    },
}
"""OpenAPI description of an error."""

FILE = {200: {"description": "The result.", "content": {"application/octet-stream": {}}},
        "4XX": ERROR}  # fmt: skip

FormOption = Annotated[
    Form,
    Query(
        description="mask (as written by ushape predict), tiff (the mask), geojson (outlines), "
        "probabilities (float32 TIFF), overlay (PNG), table (objects as CSV), or instances "
        "(object numbers)."
    ),
]
JobId = Annotated[str, Path(max_length=64)]
WaitOption = Annotated[bool, Query(description="false: return the ID of a job immediately (202).")]


def build_app(service: Service) -> FastAPI:
    """Return the application; `Guard` must stand in front of it."""
    app = FastAPI(
        title="ushape",
        version=__version__,
        description="Predicts the masks of images.",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.add_exception_handler(Exception, _send_nothing)
    app.add_exception_handler(HTTPException, _refuse_path)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    _add_page(app)
    _add_predict(app, service)
    _add_jobs(app, service)
    _add_facts(app, service)
    add_kserve(app, service)
    return app


@dataclass(frozen=True)
class Measured:
    """ASGI application that counts the requests of another one."""

    app: App
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.monotonic(), [499]  # The client has left.

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.add_request(route, status[0], time.monotonic() - started)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        content = render_page(app.openapi(), get_args(Form))
        return HTMLResponse(content, headers={"Content-Security-Policy": content_policy()})


def _add_predict(app: FastAPI, service: Service) -> None:
    jobs = service.jobs

    @app.post(
        "/predict",
        description="Predict one image, or several (then the answer is a ZIP file).",
        openapi_extra={"requestBody": FORM_BODY},
        responses=FILE,  # type: ignore[arg-type]
    )
    async def predict(
        request: Request, form: FormOption = "mask", wait: WaitOption = True
    ) -> Response:
        length = request.headers.get("content-length", "0")
        content_type = request.headers.get("content-type", "")
        stated = int(length) if length.isdecimal() else 0
        if not wait:
            jobs.require_place()
        job = await jobs.receive(request.stream(), content_type, stated, form)
        if not wait:
            jobs.keep(job)
            place = f"/jobs/{job.id}"
            return JSONResponse(job.description, status_code=202, headers={"Location": place})
        answer = await while_connected(request.receive, jobs.wait(job))
        service.metrics.add_pixels(sum(task.pixels for task in job.tasks))
        return _FileAnswer(answer, partial(jobs.remove, job))


def _add_jobs(app: FastAPI, service: Service) -> None:
    jobs = service.jobs

    @app.get(
        "/jobs/{job_id}",
        description="Return the state and progress of a job.",
        responses={"4XX": ERROR},
    )
    async def show_job(job_id: JobId) -> JSONResponse:
        return JSONResponse(jobs.find(job_id).description)

    @app.get(
        "/jobs/{job_id}/result",
        description="Return the result of a finished job.",
        responses=FILE,  # type: ignore[arg-type]
    )
    async def get_result(job_id: JobId) -> Response:
        job = jobs.find(job_id)
        if job.refusal is not None:
            job.is_fetched = True
            raise job.refusal
        if job.answer is None:
            raise Refusal(409, "not_done", "The job is not finished.", "Check its state first.")
        return _FileAnswer(job.answer, partial(setattr, job, "is_fetched", True))

    @app.delete(
        "/jobs/{job_id}",
        status_code=204,
        description="Stop a job and delete its result.",
        responses={"4XX": ERROR},
    )
    async def remove_job(job_id: JobId) -> Response:
        jobs.drop(jobs.find(job_id))
        return Response(status_code=204)


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get("/health", description="Return whether the server is ready.")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/metadata", description="Return classes, mask values, channels, scores and versions.")
    async def metadata() -> JSONResponse:
        return JSONResponse(service.metadata)

    @app.get("/metrics", description="Return counters in Prometheus format.")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(service.metrics.text())


class _FileAnswer(FileResponse):
    """Answer with a file; `on_end` is called when it was sent, or the client has left."""

    def __init__(self, answer: Answer, on_end: Callable[[], object] = lambda: None):
        super().__init__(
            answer.path,
            media_type=answer.media_type,
            filename=answer.name,
            headers=answer.facts,
            content_disposition_type="inline",
        )
        self.on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.on_end()


class _Nothing(Response):
    """No answer, because the guard sends it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass


async def _send_nothing(request: Request, error: Exception) -> Response:
    """Leave the answer to the guard; Starlette raises the error again."""
    return _Nothing()


async def _refuse_path(request: Request, error: Exception) -> NoReturn:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "unknown_path", 405: "wrong_method"}.get(status, "invalid_request")
    raise Refusal(status, code, "There is no such request.", "GET / lists all requests.")


async def _refuse_parameters(request: Request, error: Exception) -> NoReturn:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    name = str(first.get("loc", ["?"])[-1])
    raise Refusal(
        400,
        "invalid_parameter",
        f"{name}: {plain_finding(first.get('msg', 'invalid'))}.",
        "GET / lists all parameters.",
    )
