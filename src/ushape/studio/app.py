"""The interface of the page: thin routes over a `Studio`, for programs on this machine only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

import numpy as np
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from starlette.exceptions import HTTPException

from ushape.errors import UshapeError, explained, plain_finding
from ushape.serving.refusals import Refusal
from ushape.serving.safety import Gate, Guard
from ushape.studio.access import Access
from ushape.studio.annotations import Annotation, Change, StaleRevisionError
from ushape.studio.classes import restore_classes
from ushape.studio.descriptions import answer_of
from ushape.studio.editing import Edit, Tool, apply_edit
from ushape.studio.layers import Layer, TileRequest, draw_tile
from ushape.studio.page import render_page, render_refusal
from ushape.studio.session import Studio
from ushape.studio.tiles import check_plane

HEADER = "x-ushape-studio"
"""Header that every changing request needs; other web pages cannot send it without a permission
that the server does not give."""

PROJECT_HEADER = "x-ushape-project"
"""Header with the project of a page: another one may be open now on the same port, with
images of the same ids."""

MAX_BODY_BYTES = 1 << 21
MAX_POINTS = 20_000
MAX_RADIUS_PX = 2_000
MAX_MINUTES = 10_000

CONFLICTS = (
    "job_running",
    "save_undecided",
    "image_not_independent",
    "nothing_to_resume",
    "no_run",
)
"""Codes of errors that the state of the project causes, not the request."""

Coordinate = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]

PAGE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cache-Control": "no-store",
}

router = APIRouter()


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class EditBody(_Body):
    """An edit as the page sends it."""

    revision: int
    tool: Tool
    edit_id: Annotated[str, Field(max_length=100)] = ""
    class_index: Annotated[int, Field(alias="class", ge=0, le=254)] = 1
    points: Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=MAX_POINTS)] = []
    radius: Annotated[FiniteFloat, Field(ge=0, le=MAX_RADIUS_PX)] = 5.0
    plane: Literal["z", "y", "x"] = "z"
    index: int = 0


class StepBody(_Body):
    """An undo or redo."""

    revision: int
    edit_id: Annotated[str, Field(max_length=100)] = ""
    plane: Literal["z", "y", "x"] = "z"


class ApartBody(_Body):
    apart: bool


class TrainBody(_Body):
    minutes: Annotated[FiniteFloat, Field(gt=0, le=MAX_MINUTES)] = 5.0
    again: bool = False
    resume: bool = False


class PredictBody(_Body):
    ids: list[str] | None = None


class ClassBody(_Body):
    index: int | None = None
    name: Annotated[str, Field(min_length=1, max_length=60)]
    color: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")] | None = None


class SettingsBody(_Body):
    save: Literal["replace", "separate"] | None = None
    threshold: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    classes: Annotated[list[ClassBody], Field(max_length=64)] = []
    removed: Annotated[list[int], Field(max_length=64)] = []


def build_app(studio: Studio, gate: Gate | None = None, access: Access | None = None) -> Guard:
    """Return the ASGI application of a studio.

    Requests for other host names or from other web pages are refused.

    Args:
        access: What requests must contain; None: nothing.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.studio, app.state.access = studio, access
    app.include_router(router)
    app.middleware("http")(_require_header)
    handlers: dict[Any, Callable[..., Response]] = {
        UshapeError: _answer_error,
        OSError: _answer_system,
        MemoryError: _answer_system,
        StaleRevisionError: _answer_stale,
        RequestValidationError: _answer_invalid,
        HTTPException: _answer_http,
        Refusal: _answer_refusal,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    return Guard(
        app=app,
        gate=gate or Gate(),
        token=access.token if access is not None else "",
        cookie=access.cookie if access is not None else "",
        open_paths=frozenset({"/", "/favicon.ico"}),
        max_body_bytes=MAX_BODY_BYTES,
    )


async def _require_header(request: Request, call_next: Any) -> Response:
    if request.method not in ("GET", "HEAD") and request.headers.get(HEADER) != "1":
        return _error(403, "header_missing", "Changes require the header X-Ushape-Studio: 1.")
    own = _studio(request).project.id
    if request.headers.get(PROJECT_HEADER, own) != own:
        message = "Another folder is now open at this address."
        return _error(409, "other_project", message, "Reload the page.")
    return cast(Response, await call_next(request))


def _error(status: int, code: str, message: str, hint: str = "", **more: Any) -> JSONResponse:
    content = {"code": code, "message": message, "hint": hint, **more}
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


def _answer_error(request: Request, error: UshapeError) -> Response:
    status = 409 if error.code in CONFLICTS else 507 if error.code == "edit_not_stored" else 422
    return _error(status, error.code, error.message, error.hint)


def _answer_system(request: Request, error: Exception) -> Response:
    known = explained(error) or UshapeError(f"{error}.", code="system_error")
    return _error(507, known.code, known.message, known.hint)


def _answer_stale(request: Request, error: StaleRevisionError) -> Response:
    hint = "Reload it and repeat the edit."
    return _error(409, "stale_revision", str(error), hint, revision=error.revision)


def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    found = plain_finding(first["msg"])
    return _error(400, "invalid_request", f"{place or 'The body'}: {found}.")


def _answer_http(request: Request, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "invalid_request")
    return _error(error.status_code, code, f"{error.detail}.")


def _answer_refusal(request: Request, error: Refusal) -> Response:
    return _error(error.status, error.code, error.message, error.hint)


def _studio(request: Request) -> Studio:
    return cast(Studio, request.app.state.studio)


def _known(request: Request, image_id: str) -> Studio:
    """Return the studio if it has an image.

    Raises:
        Refusal: if it does not.
    """
    studio = _studio(request)
    if image_id not in studio.project.images:
        raise Refusal(404, "unknown_image", "There is no such image.", "Reload the page.")
    return studio


@router.get("/")
def get_page(request: Request, token: str = "") -> Response:
    access = cast(Access | None, request.app.state.access)
    if access is not None and token and access.is_known(token):
        answer = RedirectResponse("/", 303, headers=PAGE_HEADERS)  # Without the token.
        answer.set_cookie(access.cookie, access.token, httponly=True, samesite="strict")
        return answer
    if access is not None and not access.is_in(request.cookies):
        return HTMLResponse(render_refusal(), 401, headers=PAGE_HEADERS)
    return HTMLResponse(render_page(), headers=PAGE_HEADERS)


@router.get("/favicon.ico")
def get_icon() -> Response:
    return Response(status_code=204)


@router.get("/api/state")
def get_state(request: Request, since: int = 0) -> dict[str, Any]:
    return _studio(request).state(since)


@router.get("/api/images")
def get_images(request: Request) -> list[dict[str, Any]]:
    return _studio(request).images()


@router.get("/api/next")
def get_next(request: Request) -> dict[str, Any]:
    found = _studio(request).suggestions()
    return {"id": found[0].id, "reason": found[0].reason} if found else {"id": None, "reason": None}


@router.get("/api/check")
def get_findings(request: Request) -> dict[str, Any]:
    return {"findings": _studio(request).findings()}


@router.post("/api/check")
def post_check(request: Request) -> dict[str, Any]:
    _studio(request).check()
    return {"job": _studio(request).jobs.describe()}


@router.get("/api/plan")
def get_plan(
    request: Request, minutes: Annotated[FiniteFloat, Field(gt=0, le=MAX_MINUTES)] | None = None
) -> dict[str, Any]:
    try:
        return {"lines": _studio(request).plan(minutes), "problem": None}
    except UshapeError as error:
        if error.code not in ("plan_failed", "job_running"):
            raise
        # Expected while the annotation is incomplete, or during training.
        return {"lines": [], "problem": " ".join(filter(None, (error.message, error.hint)))}


@router.post("/api/train")
def post_train(request: Request, body: TrainBody) -> dict[str, Any]:
    studio = _studio(request)
    studio.train(body.minutes, again=body.again, resume=body.resume)
    return {"job": studio.jobs.describe()}


@router.post("/api/job/stop")
def post_stop(request: Request) -> dict[str, Any]:
    studio = _studio(request)
    studio.jobs.stop()
    return {"job": studio.jobs.describe()}


@router.post("/api/predict")
def post_predict(request: Request, body: PredictBody) -> dict[str, Any]:
    studio = _studio(request)
    for image_id in body.ids or ():
        _known(request, image_id)
    studio.predict(body.ids)
    return {"job": studio.jobs.describe()}


@router.post("/api/settings")
def post_settings(request: Request, body: SettingsBody) -> dict[str, Any]:
    studio = _studio(request)
    classes = [one.model_dump() for one in body.classes]
    studio.change_settings(save=body.save, classes=classes, removed=body.removed)
    if "threshold" in body.model_fields_set:
        studio.set_threshold(body.threshold)
    return studio.state(studio.project.version)["project"]


@router.get("/api/report")
def get_report(request: Request) -> Response:
    page = _studio(request).report()
    if page is None:
        raise Refusal(404, "no_report", "There is no report yet.", "Train with test images.")
    sandbox = "sandbox allow-scripts allow-popups; frame-ancestors 'self'"
    return HTMLResponse(page, headers={**PAGE_HEADERS, "Content-Security-Policy": sandbox})


@router.get("/api/images/{image_id}")
def get_image(request: Request, image_id: str) -> dict[str, Any]:
    return _known(request, image_id).image(image_id)


@router.get("/api/images/{image_id}/tile")
def get_tile(
    request: Request,
    image_id: str,
    level: int,
    x: int,
    y: int,
    layer: Layer = "image",
    plane: str = "z",
    index: int = 0,
    class_index: Annotated[int | None, Field(alias="class", ge=0, le=254)] = None,
    threshold: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None,
) -> Response:
    project = _known(request, image_id).project
    if layer not in ("image", "mask") and project.parts.of(image_id) == "test":
        return Response(status_code=204)
    asked = TileRequest(
        layer=layer, level=level, x=x, y=y, plane=plane, index=index, class_index=class_index,
        threshold=threshold,
    )  # fmt: skip
    if layer not in ("image", "mask") and project.prediction(image_id) is not None:
        project.parts.note_seen(image_id)
    try:
        tag = asked.tag(project, image_id)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        content = draw_tile(project, image_id, asked)
    except FileNotFoundError:
        if layer in ("image", "mask"):
            raise
        content = None  # The prediction is being replaced by another one.
    if content is None:
        return Response(status_code=204)
    return Response(content, media_type="image/png", headers=headers)


@router.post("/api/images/{image_id}/edit")
def post_edit(request: Request, image_id: str, body: EditBody) -> dict[str, Any]:
    project = _unlocked(request, image_id).project
    annotation = project.annotation(image_id)
    plane = check_plane(annotation.shape, body.plane, body.index)
    count = len(project.target.space.values)
    if body.class_index >= count or body.class_index in project.settings.removed_classes:
        raise Refusal(
            422, "unknown_class", f"There is no class {body.class_index}.",
            f"Classes are numbered from 0 to {count - 1}.",
        )  # fmt: skip
    prediction = None
    if body.tool in ("accept", "accept_object"):
        prediction = project.prediction(image_id)
    edit = Edit(
        tool=body.tool,
        points=np.array(body.points, dtype=np.float64).reshape(-1, 2)[:, ::-1],
        class_index=body.class_index,
        radius_px=body.radius,
        plane=plane,
        index=body.index,
        threshold=project.settings.threshold,
    )
    if prediction is not None:
        project.parts.note_seen(image_id)
    change = apply_edit(annotation, edit, body.revision, body.edit_id, prediction)
    _after_change(request, image_id, annotation, change)
    return answer_of(annotation, change, "zyx".index(plane))


@router.post("/api/images/{image_id}/undo")
def post_undo(request: Request, image_id: str, body: StepBody) -> dict[str, Any]:
    return _step(request, image_id, body, "undo")


@router.post("/api/images/{image_id}/redo")
def post_redo(request: Request, image_id: str, body: StepBody) -> dict[str, Any]:
    return _step(request, image_id, body, "redo")


@router.post("/api/images/{image_id}/apart")
def post_apart(request: Request, image_id: str, body: ApartBody) -> dict[str, Any]:
    studio = _known(request, image_id)
    studio.set_apart(image_id, apart=body.apart)
    return {"id": image_id, "apart": image_id in studio.project.settings.apart}


def _step(
    request: Request, image_id: str, body: StepBody, kind: Literal["undo", "redo"]
) -> dict[str, Any]:
    annotation = _unlocked(request, image_id).project.annotation(image_id)
    change = annotation.step(body.revision, body.edit_id, kind)
    _after_change(request, image_id, annotation, change)
    return answer_of(annotation, change, "zyx".index(body.plane))


def _after_change(request: Request, image_id: str, annotation: Annotation, change: Change) -> None:
    project = _studio(request).project
    restore_classes(project, annotation, change)
    project.saver.add(image_id)  # First: a page that knows of the change asks whether it is saved.
    project.note_change(image_id)


def _unlocked(request: Request, image_id: str) -> Studio:
    """Return the studio if it has an image that may be corrected.

    Raises:
        Refusal: if there is no such image, or if it is held out for testing.
    """
    studio = _known(request, image_id)
    if (reason := studio.project.parts.locked(image_id)) is not None:
        raise Refusal(423, "image_locked", reason, "Correct another image.")
    return studio
