"""Inputs and outputs at URLs: local copies for the functions, which read and write local files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from ushape.console import Console
from ushape.data.inputs import Input
from ushape.data.remote_images import RemoteImages
from ushape.errors import ConfigError, DataError, RunError, UshapeError
from ushape.formatting import renamed
from ushape.inference.output.uploads import Uploads
from ushape.inference.output.writer import PredictionWriter
from ushape.inference.predictor import Predictor
from ushape.io import is_image
from ushape.io.files import (
    read_json,
    real_path,
    remove_leftovers,
    remove_quietly,
    temporary_name,
    write_json,
)
from ushape.io.mirror import FOLDER_VARIABLE, mirror, unchanged, url_of_copy
from ushape.io.remote import RemoteFolder, url_of
from ushape.planning.run import Run

WORK_FOLDER = "ushape-remote"
"""Part of the name of a temporary folder."""

URLS_FILE = "remote.json"
"""File of a run with the URLs of its data, if it was trained on a copy of files at URLs."""


@contextmanager
def local_copies(
    data: Path | str, masks: Path | str | None, say: Callable[[str], None]
) -> Iterator[tuple[Path, Path | str | None]]:
    """Yield local paths as they are, and for URLs up-to-date copies that do not change meanwhile.

    Raises:
        UshapeError: if `mirror` raises it.
    """
    named = {"data": data, "masks": masks}
    urls = {key: url_of(path) if path is not None else None for key, path in named.items()}
    with ExitStack() as stack:
        different = dict.fromkeys(url for url in urls.values() if url is not None)
        copies = {url: stack.enter_context(mirror(url, say)) for url in different}
        yield (
            copies[urls["data"]] if urls["data"] else Path(data),
            copies[urls["masks"]] if urls["masks"] else masks,
        )


def note_urls(run: Run, data: Path, masks: Path | None) -> None:
    """Store the URLs of the data in the run, if they are copies of folders at URLs."""
    found = {"data": url_of_copy(data), "masks": url_of_copy(masks) if masks else None}
    if urls := {key: url for key, url in found.items() if url is not None}:
        write_json(run.folder / URLS_FILE, urls)


@contextmanager
def copies_restored(run: Run, say: Callable[[str], None]) -> Iterator[None]:
    """Keep the copies of the data of a run unchanged, if they lie at URLs.

    They are copied again if they were removed.

    Raises:
        RunError: if copies lie in another place now than when the run was made.
        UshapeError: if `mirror` raises it.
    """
    path = run.folder / URLS_FILE
    hint = "Remove it if the data are still at the location that is stored in `cases.json`."
    urls = read_json(path, RunError, code="invalid_run_file", hint=hint) if path.exists() else {}
    with ExitStack() as stack:
        folders = run.data_and_masks() if urls else (None, None)
        for key, folder in zip(("data", "masks"), folders, strict=True):
            if key not in urls or folder is None:
                continue
            if folder.exists():
                if url_of_copy(folder):  # Otherwise it is a folder of the user.
                    stack.enter_context(unchanged(folder))
                continue
            copy = stack.enter_context(mirror(str(urls[key]), say))
            if real_path(copy) != real_path(folder):
                raise RunError(
                    f"The {key} of {run.folder} were in {folder}; the copy of {urls[key]} is "
                    f"{copy}.",
                    code="data_missing",
                    hint=f"Set {FOLDER_VARIABLE} as it was, or correct the folder in "
                    f"{run.cases_path}.",
                )
        yield


class RemoteFiles:
    """Local paths of the images and of the output folder of `predict`, which may be at URLs.

    Without a URL, all methods do nothing. Temporary copies are removed when the block ends.

    Args:
        images: Images that the user named.
        output: Output folder that the user named.
        console: Console whose messages name URLs instead of temporary paths.
    """

    def __init__(self, images: object, output: Path | str | None, console: Console):
        self._named = [images] if isinstance(images, (str, Path)) else list(cast(Any, images))
        self._urls = [url_of(one) if isinstance(one, (str, Path)) else None for one in self._named]
        self._console, self._renamed = console, console.renamed
        self.output = Path(output) if output else None
        self._images: RemoteImages | None = None
        self._target: RemoteFolder | None = None
        self._uploads: Uploads | None = None
        url = url_of(output) if output else None
        self._work: Path | None = None
        if url is None and not any(self._urls):
            return
        self._target = _open_output(url) if url is not None else None
        self._work = _make_work_folder()
        if self._target is not None:
            self.output = self._work / "output"
            self._renamed[str(self.output)] = self._target.url
        if any(self._urls):
            (self._work / "images").mkdir()
            below = self._target.url if self._target else ""
            self._images = RemoteImages(self._work / "images", below)

    def __enter__(self) -> RemoteFiles:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if self._uploads is not None:
                if error is None or isinstance(error, DataError):
                    self._finish(self._uploads)  # Even if some images could not be predicted.
                else:
                    self._uploads.stop()
        finally:
            if self._uploads is not None:
                self._uploads.close()
            if self._images is not None:
                self._images.close()
            if self._work is not None:
                remove_quietly(self._work)
        if isinstance(error, UshapeError):
            error.message = renamed(error.message, self._renamed)

    @staticmethod
    def _finish(uploads: Uploads) -> None:
        """Upload everything, or what is complete if this is interrupted or fails."""
        try:
            uploads.finish()
        except BaseException:
            uploads.stop()
            raise

    @property
    def local_folders(self) -> list[Path]:
        """Named folders of images; none if anything else is named, or a URL."""
        if self._work is not None:
            return []
        paths = [Path(one) for one in self._named if isinstance(one, (str, Path))]
        are_folders = all(path.is_dir() and not is_image(path) for path in paths)
        return paths if are_folders and len(paths) == len(self._named) else []

    def find(self, predictor: Predictor, find: Callable[..., list[Input]]) -> list[Input]:
        """Return the inputs that `find_images` returns, which tells how each one can be fetched."""
        say = self._console.say
        if self._images is None:
            return find(predictor, self._named, say)
        paths = []
        for named, url in zip(self._named, self._urls, strict=True):
            paths.append(named if url is None else self._images.add(url))
            if url is not None:
                self._renamed.update(self._images.addresses)
        self._images.prepare(whole=predictor.reads_groups)
        return self._images.with_origins(find(predictor, paths, say, self._images.read))

    def start(self, writer: PredictionWriter, inputs: Sequence[Input]) -> None:
        """Read the log at the URL of the output, and check that nothing would be replaced.

        Raises:
            ConfigError: if an output would be written into the images.
            RunError: if an output exists, or is one of the images.
        """
        if self._images is not None and writer.config.zarr_labels:
            raise ConfigError(
                "Label images cannot be added to images at URLs.",
                code="remote_unsupported",
                hint="Omit --zarr-labels, or copy the images to a local folder.",
            )
        if self._target is not None:
            self._uploads = Uploads(self._target, writer)
            self._uploads.check([one for one in inputs if not self._uploads.is_done(one)])

    def is_done(self, image: Input) -> bool:
        """Return whether an earlier call has uploaded all outputs of an image."""
        return self._uploads is not None and self._uploads.is_done(image)

    def expect(self, images: Sequence[Input]) -> None:
        """Announce which images will be fetched, in this order."""
        if self._images is not None:
            self._images.expect(images)

    def fetch(self, image: Input) -> None:
        """Wait until the files of an image are local."""
        if self._images is not None:
            self._images.fetch(image)

    @property
    def refused(self) -> Mapping[str, DataError]:
        """Errors about images that cannot be copied because of their names, by address."""
        return {} if self._images is None else self._images.refused

    def release(self, image: Input) -> None:
        """Remove the temporary copies of an image that was predicted or failed."""
        if self._work is not None:
            os.utime(self._work)  # Other machines remove folders that are unchanged for a day.
        if self._images is not None:
            self._images.release(image)

    def upload(self, image: Input) -> None:
        """Upload the outputs of an image, together with those of others."""
        if self._uploads is not None:
            self._uploads.add(image)

    def addresses_of(self, masks: list[Path]) -> list[Path] | list[str]:
        """Return the paths of masks, or their URLs if the output is at a URL."""
        if self._target is None or self.output is None:
            return masks
        names = (path.relative_to(self.output).as_posix() for path in masks)
        return [self._target.address_of(name) for name in names]


def _open_output(url: str) -> RemoteFolder:
    target = RemoteFolder(url)
    if target.is_web:
        raise ConfigError(
            f"{target.url}: files cannot be written to a web server.",
            code="remote_unsupported",
            hint="Use a local folder, or one in an object store, such as s3://bucket/masks.",
        )
    return target


def _make_work_folder() -> Path:
    """Create a temporary folder, and remove those of processes that were killed."""
    place = Path(tempfile.gettempdir())
    remove_leftovers(place, f".{WORK_FOLDER}.*")
    folder = temporary_name(place / WORK_FOLDER)
    remove_quietly(folder)  # Left by an earlier process with the same number, as in a container.
    folder.mkdir(mode=0o700)
    return folder
