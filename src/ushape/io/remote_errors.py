"""Errors of object stores and web servers, and what a user can do about them."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from ushape.errors import ConfigError, DataError, TemporaryError, UshapeError
from ushape.io.files import last_line

NO_CREDENTIALS = re.compile("Credential|SSOToken|TokenRetrieval|ProfileNotFound")
"""Part of the names of exceptions that report missing or expired credentials."""

NETWORK_MODULES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "urllib3", "requests")
"""Packages whose exceptions usually are those of a network, unless they are a ValueError."""

LASTING = (
    errno.EINVAL,
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EMSGSIZE,
    errno.ENOSYS,
)
"""System errors of a request that fails again if it is repeated."""

WRONG_PLACE = ("PermanentRedirect", "301")
"""Codes by which S3 reports that a bucket has another address, for example in another region."""

CREDENTIALS_EXPIRED = frozenset(
    (
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "TokenRefreshRequired",
    )
)
"""Codes by which S3 and its login service (STS) refuse credentials that were valid before."""

CREDENTIALS_WRONG = frozenset(
    (
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    )
)
"""Codes by which they refuse credentials that are not valid, whatever the file is.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""


S3_HINT = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or those of your provider. "
    "For public data, set FSSPEC_S3_ANON=true (FSSPEC_GS_TOKEN=anon)."
)

GOOGLE_HINT = (
    "Set GOOGLE_APPLICATION_CREDENTIALS to a file with valid credentials, or renew them with "
    "`gcloud auth application-default login`. For public data, set FSSPEC_GS_TOKEN=anon."
)


def explain(error: Exception, where: str) -> Exception | None:
    """Return the exception to raise, or None if the same call may succeed later."""
    status, kind = _status_of(error), type(error).__name__
    if isinstance(error, UshapeError) or _is_of_disk(error):
        return error
    if (refusal := _explain_code(_code_of(error), error, where)) is not None:
        return refusal
    if NO_CREDENTIALS.search(kind) or status == 401:
        return ConfigError(
            f"{where}: no valid credentials were found ({without_queries(error)}).",
            code="remote_credentials",
            hint=GOOGLE_HINT if where.startswith("gs://") else S3_HINT,
        )
    if isinstance(error, PermissionError) or status == 403:
        return ConfigError(
            f"{where}: access was denied ({without_queries(error)}).",
            code="remote_denied",
            hint="Check the credentials, and that they allow this folder to be listed, read and, "
            "for outputs, written.",
        )
    if isinstance(error, FileNotFoundError) or status == 404:
        return DataError(
            f"{where} does not exist ({without_queries(error)}).",
            code="file_not_found",
            hint="Check the spelling. A bucket is not created by this command.",
        )
    is_network = _is_of_network(error)
    is_lasting = (
        isinstance(error, (ValueError, FileExistsError))
        or (isinstance(error, OSError) and error.errno in LASTING)
        or kind in ("ParamValidationError", "NoRegionError", "InvalidRegionError")
        or (status is not None and 400 <= status < 500 and status not in (408, 425, 429))
    )
    if is_lasting or not (is_network or isinstance(error, (OSError, TimeoutError))):
        return DataError(
            f"{where}: the request failed ({kind}: {without_queries(error)}).",
            code="remote_failed",
            hint="Check the address.",
        )
    return None


def _is_of_disk(error: Exception) -> bool:
    """Return whether an error is one of the local disk.

    An error of a transfer to a local file may have the name of this file as well.
    """
    is_of_server = isinstance(error, (ConnectionError, TimeoutError)) or bool(_code_of(error))
    return (
        isinstance(error, OSError)
        and bool(error.filename)
        and not (is_of_server or _is_of_network(error))
    )


def _is_of_network(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in NETWORK_MODULES


def _status_of(error: Exception) -> int | None:
    """Return the HTTP status in an exception; None if it has none.

    The exceptions of aiohttp have it as `status`, and those of gcsfs as `code`. For a status of
    403, gcsfs raises an OSError that begins with this word and has no error number.
    """
    status = getattr(error, "status", None)
    status = getattr(error, "code", None) if status is None else status
    with suppress(TypeError, ValueError):
        return int(cast(Any, status))
    is_forbidden = type(error) is OSError and error.errno is None
    return 403 if is_forbidden and str(error).startswith("Forbidden") else None


def _code_of(error: BaseException | None) -> str:
    """Return the code in the answer of an S3 server, which s3fs keeps in the cause of an error."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping) and isinstance(response.get("Error"), Mapping):
            return str(response["Error"].get("Code", ""))
        error = error.__cause__
    return ""


def _explain_code(code: str, error: Exception, where: str) -> UshapeError | None:
    """Return the exception for a code of S3 that concerns all files of a bucket, or None."""
    answer = f"{code}: {without_queries(error)}"
    if code in CREDENTIALS_EXPIRED:
        clock = (
            "Correct the clock of this machine first. " if code == "RequestTimeTooSkewed" else ""
        )
        return TemporaryError(
            f"{where}: the server no longer accepts the credentials ({answer}).",
            code="remote_credentials",
            hint=f"Renew the credentials, and run the same command again. {clock}Finished work is "
            "kept.",
        )
    if code in CREDENTIALS_WRONG:
        return ConfigError(
            f"{where}: the server does not accept the credentials ({answer}).",
            code="remote_credentials",
            hint="Correct the access key and its secret (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or AWS_PROFILE), and check that "
            "AWS_ENDPOINT_URL is the server that they belong to. Finished work is kept.",
        )
    if code in WRONG_PLACE:
        return ConfigError(
            f"{where}: the bucket has a different address ({answer}).",
            code="remote_failed",
            hint="Set AWS_DEFAULT_REGION to the region of the bucket, or AWS_ENDPOINT_URL to the "
            "address of its server.",
        )
    return None


def without_queries(error: Exception) -> str:
    """Return the last line of an exception without queries of URLs, which may hold signatures."""
    return re.sub(r"\?[^\s'\"),]*", "", last_line(error))


def name_error(error: OSError, name: str) -> DataError | None:
    """Return the error about a name that a local file cannot have; None if that is not the cause.

    Object stores allow long names, and a file and a folder of one name.
    """
    if error.errno == errno.ENAMETOOLONG:
        return DataError(
            f"{name}: the name is too long for a local file.",
            code="remote_name_too_long",
            hint="Rename the file at the URL.",
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY):
        return DataError(
            f"{name}: two names at the URL cannot both exist in a local folder: a file and a "
            "folder have the same name, or names differ only in case.",
            code="remote_name_conflict",
            hint="Rename one of them.",
        )
    return None
