"""Data of a training that lie at URLs: local copies, and their addresses in the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ushape.errors import RunError
from ushape.io.files import read_json, real_path, write_json
from ushape.io.mirror import FOLDER_VARIABLE, mirror, url_of_copy
from ushape.io.remote import url_of
from ushape.planning.run import Run

URLS_FILE = "remote.json"
"""File of a run with the URLs of its data, if it was trained on a copy of files at URLs."""


def local_copy(path: Path | str, say: Callable[[str], None]) -> Path:
    """Return a local path as it is, and the up-to-date copy of a folder at a URL.

    Raises:
        UshapeError: if `mirror` raises it.
    """
    url = url_of(path)
    return Path(path) if url is None else mirror(url, say)


def note_urls(run: Run, data: Path, masks: Path | None) -> None:
    """Store the URLs of the data in the run, if they are copies of folders at URLs."""
    found = {"data": url_of_copy(data), "masks": url_of_copy(masks) if masks else None}
    if urls := {key: url for key, url in found.items() if url is not None}:
        write_json(run.folder / URLS_FILE, urls)


def restore_copies(run: Run, say: Callable[[str], None]) -> None:
    """Copy the data of a run again, if they lie at URLs and the local copy was removed.

    Raises:
        RunError: if copies lie in another place now than when the run was made.
        UshapeError: if `mirror` raises it.
    """
    path = run.folder / URLS_FILE
    if not path.exists():
        return
    hint = "Remove it if the data are still where `cases.json` states."
    urls = read_json(path, RunError, code="invalid_run_file", hint=hint)
    for key, folder in zip(("data", "masks"), run.data_and_masks(), strict=True):
        if key not in urls or folder is None or folder.exists():
            continue
        copy = mirror(str(urls[key]), say)
        if real_path(copy) != real_path(folder):
            raise RunError(
                f"The {key} of {run.folder} were in {folder}; the copy of {urls[key]} is {copy}.",
                code="data_missing",
                hint=f"Set {FOLDER_VARIABLE} as it was, or correct the folder in {run.cases_path}.",
            )
