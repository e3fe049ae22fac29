"""Errors in the answers of a server: their status, and what they may reveal."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence

from ushape.errors import (
    ConfigError,
    DataError,
    MissingPackageError,
    PlanError,
    UshapeError,
    is_disk_full,
)

RETRY_AFTER = ("Retry-After", "5")
"""Header of answers to requests that may be repeated in a few seconds."""

ABSOLUTE_PATH = re.compile(r"(?<![\w/.])(?:[A-Za-z]:[\\/]|/(?=[^\s/]+/))[^\s:,;'\"()]*[\\/]")
"""Folder of an absolute path, up to the last separator."""

STATUS_OF_CODE = {"image_too_large": 413, "unknown_format": 415, "output_exists": 409}
"""HTTP status of errors whose code tells more than their class."""

logger = logging.getLogger("ushape.serving")


class Refusal(Exception):
    """A request is answered with an error.

    Args:
        status: HTTP status, 400 to 599.
        code: Stable name of this kind of error in snake_case.
        message: What is wrong.
        hint: What to do next; empty if nothing can be advised.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ):
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.headers = dict(headers)
        self.extra: dict[str, str] = {}
        """Further entries of the answer."""

    @property
    def body(self) -> dict[str, str]:
        """Content of the answer."""
        return {"code": self.code, "message": self.message, "hint": self.hint, **self.extra}


def refusal_of(error: Exception) -> Refusal:
    """Return the answer to a request that failed; unknown errors are not described."""
    if isinstance(error, Refusal):
        return error
    if is_disk_full(error):
        return disk_full()
    if not isinstance(error, UshapeError):
        return Refusal(
            500, "internal_error", "Internal server error.", "See the server log on standard error."
        )
    status = STATUS_OF_CODE.get(error.code, 500)
    if status == 500 and isinstance(error, (DataError, ConfigError, PlanError)):
        status = 400 if isinstance(error, ConfigError) else 422
    if isinstance(error, MissingPackageError):
        status = 415
    return Refusal(status, error.code, without_folders(error.message), without_folders(error.hint))


def disk_full() -> Refusal:
    """Return the answer to a request for which the disk has too little space."""
    return Refusal(
        503,
        "disk_full",
        "The server does not have enough disk space.",
        "Try again later, or ask the operator to free some space.",
        [RETRY_AFTER],
    )


def log_failure(error: Exception) -> None:
    """Log what the operator must know: a full disk, or an unknown error with its traceback."""
    if isinstance(error, Refusal):
        return
    if is_disk_full(error):
        logger.error("A request failed because there is not enough disk space.")
    elif not isinstance(error, UshapeError):
        logger.error("A request failed.", exc_info=error)


def without_folders(text: str) -> str:
    """Return a text in which absolute paths are replaced by their last part."""
    text = text.replace(tempfile.gettempdir(), "/tmp")  # It may contain spaces.
    return ABSOLUTE_PATH.sub("", text)
