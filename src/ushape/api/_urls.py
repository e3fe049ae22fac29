"""Which parameters of the public functions may be URLs; all others are refused centrally."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from ushape.errors import ConfigError
from ushape.io.remote import shown, url_of

ACCEPTED: Mapping[str, frozenset[str]] = {
    "fetch": frozenset({"address"}),
    "predict": frozenset({"images", "output"}),
    "train": frozenset({"data", "masks"}),
}
"""Parameters that may be a URL, by the name of the function."""

PATHS = ("Path", "recipe")
"""Part of the annotation, or name, of parameters that are paths."""


def refusing_urls(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a public function that refuses URLs in place of its local paths.

    Otherwise, `s3://bucket/x` would be read as the local path `s3:/bucket/x`.
    """
    signature, accepted = inspect.signature(function), ACCEPTED.get(function.__name__, ())
    local = [
        name
        for name, one in signature.parameters.items()
        if name not in accepted and any(part in f"{name}: {one.annotation}" for part in PATHS)
    ]

    @wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        given = signature.bind_partial(*arguments, **options).arguments
        for name in local:
            refuse_url(given.get(name), function.__name__)
        return function(*arguments, **options)

    return checked


def refuse_url(value: Any, function: str) -> None:
    """Check that a path, or each of several, is not a URL.

    Raises:
        ConfigError: if it is one.
    """
    is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    for one in value if is_list and isinstance(value, (list, tuple)) else [value]:
        url = url_of(one) if isinstance(one, (str, Path)) else None
        if url is not None:
            raise ConfigError(
                f"{shown(url)} is a URL, but {function} needs a local path here.",
                code="remote_unsupported",
                hint="Copy the files to a local folder, and use that. URLs are accepted as data "
                "and masks of `ushape train`, and as images and output of `ushape predict`.",
            )
