"""Kaggle through its own client, with the user's account."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn, Protocol

from ushape.datasets import Source
from ushape.errors import ConfigError, DataError, UshapeError

BY_HAND = "Or download the archive by hand from {page} and name it with --from."
CREDENTIALS = (
    "At kaggle.com, under Settings, API, make a token. Save it as ~/.kaggle/kaggle.json, or set "
    "KAGGLE_USERNAME and KAGGLE_KEY, or KAGGLE_API_TOKEN."
)


class KaggleClient(Protocol):
    """What is used of the kagglehub package; tests have a stand-in."""

    def dataset_download(self, handle: str) -> str:
        """Folder of the client's own cache, with the data set unpacked."""
        ...

    def competition_download(self, handle: str, path: str) -> str:
        """One file of a competition, in the client's own cache."""
        ...


def kagglehub() -> KaggleClient:
    """The real client.

    Raises:
        ConfigError: not installed.
    """
    try:
        import kagglehub
    except ImportError:
        raise ConfigError(
            "Kaggle's client is not installed.",
            hint='pip install "ushape[kaggle]"; or download the archive by hand and name it '
            "with --from.",
        ) from None
    client: KaggleClient = kagglehub
    return client


def download_dataset(source: Source, client: KaggleClient) -> Path:
    """Raises: ConfigError: no account; DataError: anything else Kaggle says."""
    assert source.dataset is not None
    try:
        folder = Path(client.dataset_download(source.dataset))
    except Exception as error:  # The client's own errors are of many kinds.
        _explain(source, error)
    if not folder.is_dir():
        raise DataError(f"Kaggle's client left no folder {folder}.", hint="Run it again.")
    return folder


def download_archive(source: Source, name: str, client: KaggleClient) -> Path:
    """Raises: ConfigError: no account, rules not accepted; DataError: anything else."""
    assert source.competition is not None
    try:
        file = Path(client.competition_download(source.competition, name))
    except Exception as error:
        _explain(source, error)
    if not file.is_file():
        raise DataError(f"Kaggle's client left no file {file}.", hint="Run it again.")
    return file


def _explain(source: Source, error: Exception) -> NoReturn:
    """Raises what the user can do about it."""
    if isinstance(error, UshapeError):
        raise error
    by_hand = BY_HAND.format(page=source.page)
    said = " ".join(str(error).split()) or type(error).__name__
    kind, status = type(error).__name__, _status(error)
    missing = kind in ("UnauthenticatedError", "CredentialError") or status == 401
    if missing or "credential" in said.lower() or "not authenticated" in said.lower():
        raise ConfigError(
            f"Kaggle does not know you: {said}.", hint=f"{CREDENTIALS} {by_hand}"
        ) from None
    if status == 403:
        rules = (
            f"Log in and accept the rules at {source.page}/rules, once."
            if source.competition
            else f"Log in and open {source.page}; it may ask for your consent."
        )
        raise ConfigError(
            f"Kaggle does not let you have {source.competition or source.dataset}: {said}.",
            hint=f"{rules} If you did, your token may be old. {CREDENTIALS} {by_hand}",
        ) from None
    if status == 404:
        raise DataError(
            f"Kaggle has no {source.competition or source.dataset} any more: {said}.",
            hint=f"Look at {source.page}. An archive of yours is named with --from.",
        ) from None
    raise DataError(
        f"Kaggle's client failed: {said}.",
        hint=f"Check the connection and run the same command again. {by_hand}",
    ) from None


def _status(error: Exception) -> int | None:
    """HTTP status, of the response or as the message tells it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status
    found = re.search(r"\b(401|403|404)\b", str(error))
    return int(found[1]) if found else None
