"""Outputs at a URL: written to a local folder first, uploaded as whole files, and then removed."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ushape import io
from ushape.data.inputs import Input
from ushape.errors import DataError, RunError
from ushape.formatting import to_csv
from ushape.inference.output.manifest import parse_line
from ushape.inference.output.writer import IMAGES_TABLE, PredictionWriter
from ushape.io.files import all_files_within
from ushape.io.remote import TRANSFERS, RemoteFile, RemoteFolder

LOG_FOLDER = ".ushape-predict/"
"""Folder at the URL with the log. Each upload adds a file, since files cannot be extended."""

LOG_NAME = re.compile(re.escape(LOG_FOLDER) + r"[0-9a-f]{32}\.jsonl")

BATCH_IMAGES = 64
BATCH_BYTES = 1 << 26
"""Number of images, and size of their outputs, that are uploaded together."""

BATCH_S = 60.0
"""Time after which the outputs of an image are uploaded although the batch is small, in seconds."""

STOP_S = 10.0
"""Time after which an interrupted call starts no more uploads, in seconds."""

Line = dict[str, Any]


class Uploads:
    """Uploads the outputs of images, and logs them at the URL.

    For each batch of images, the log first records which outputs will be written, and afterwards
    which are complete. A later call therefore knows what is finished, and which outputs it may
    replace because a call like it was interrupted. The last line about an image counts, also if
    another model or other settings have written it. One batch is uploaded while the next one is
    predicted. Several processes may write to one URL, each different images.

    Args:
        remote: Output folder.
        writer: Writer of the local outputs.

    Raises:
        UshapeError: if the server cannot be reached, or refuses the request.
    """

    def __init__(self, remote: RemoteFolder, writer: PredictionWriter):
        assert writer.manifest is not None, "outputs are below a folder"
        self._remote, self._writer, self._manifest = remote, writer, writer.manifest
        self._folder = writer.manifest.folder
        self._last: dict[str, Line] = {}  # Of each image, by calls like this one.
        self._last_of_others: dict[str, float] = {}  # Time of the last line of other calls.
        self._logs: list[str] = []
        self._logs_of_others: dict[str, dict[str, float]] = {}  # Times of the lines about images.
        self._found = self._read_logs()
        self._batch: list[tuple[Line, dict[str, Path]]] = []
        self._batch_bytes = 0
        self._timer: threading.Timer | None = None
        self._guard = threading.Lock()  # Held while the batch is changed.
        self._pool = ThreadPoolExecutor(1)
        self._uploads: list[Future[None]] = []

    def is_done(self, image: Input) -> bool:
        """Return whether an earlier call like this one has uploaded all outputs of an image.

        The image must not have changed since, nor the sizes of the outputs, and no other call may
        have replaced them.
        """
        line = self._current(image.below.as_posix())
        submission = self._writer.submission
        has_row = submission is None or image.case.image.name in submission.done
        is_finished = line is not None and "files" in line
        if line is None or not (is_finished and has_row) or self._writer.config.overwrite:
            return False
        is_same = line["source"] == self._manifest.source_of(image.case)
        return is_same and self._has_outputs(line)

    def check(self, inputs: Iterable[Input]) -> None:
        """Check that no image and no file of the user would be replaced.

        Raises:
            RunError: if an output exists, or is one of the images.
        """
        inputs, has_log = list(inputs), bool(self._logs)
        if self._writer.writes_images_table and IMAGES_TABLE in self._found and not has_log:
            self._refuse(IMAGES_TABLE)
        origins = [one.case.origin[0].split("\n") for one in inputs if one.case.origin]
        sources = {_without_suffix(url) for urls in origins for url in urls}
        taken = {_without_suffix(name): name for name in self._found}
        for image in inputs:
            target = self._remote.address_of(image.below.as_posix())
            if _without_suffix(target) in sources:
                raise RunError(
                    f"The mask of {target} would replace an image or have the same name as one.",
                    code="output_is_input",
                    hint="Choose another folder with -o.",
                )
            outputs = (path.relative_to(self._folder) for path in self._writer.outputs_of(image))
            names = [name for name in map(Path.as_posix, outputs) if name in self._found]
            name = taken.get(_without_suffix(image.below.as_posix())) or next(iter(names), None)
            if name and not self._may_replace(image):
                self._refuse(name)

    def add(self, image: Input) -> None:
        """Upload the outputs of an image with the next batch, after a minute at the latest.

        Raises:
            UshapeError: if the upload of an earlier batch failed.
        """
        files = {
            path.relative_to(self._folder).as_posix(): path
            for one in self._writer.outputs_of(image)
            for path in all_files_within(one)
        }
        sizes = {name: path.stat().st_size for name, path in files.items()}
        line = {
            "image": image.below.as_posix(),
            "source": self._manifest.source_of(image.case),
            "files": sizes,
            "rows": [
                {key: value for key, value in row.items() if key != "image"}
                for row in self._manifest.rows_of([image.below])
            ],
        }
        with self._guard:
            self._batch.append((line, files))
            self._batch_bytes += sum(sizes.values())
            is_full = len(self._batch) >= BATCH_IMAGES or self._batch_bytes >= BATCH_BYTES
            if self._timer is None:
                self._timer = threading.Timer(BATCH_S, self._start)
                self._timer.daemon = True
                self._timer.start()
        self._wait(only_finished=not is_full)
        if is_full:
            self._start()

    def finish(self) -> None:
        """Upload what is left, and the table of all images.

        Raises:
            UshapeError: if an upload failed.
        """
        self._start()
        self._wait()
        self._write_table()
        self._merge_logs()

    def stop(self) -> None:
        """Upload the outputs that are complete; start no more files after a few seconds.

        This is for a call that ends early: the next one need not predict these images again. Errors
        are ignored, since the call already ends with one.
        """
        try:
            self._start()
            wait(self._uploads, timeout=STOP_S, return_when=FIRST_EXCEPTION)
        finally:
            self._remote.give_up()

    def close(self) -> None:
        """Wait for the files that are being transferred, and begin no other upload."""
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
            self._batch = []
        self._pool.shutdown(cancel_futures=True)

    def _refuse(self, name: str) -> None:
        """Raise an error about a file that exists, unless existing files may be replaced."""
        if not self._writer.config.overwrite:
            raise RunError(
                f"{self._remote.address_of(name)} already exists.",
                code="output_exists",
                hint="Choose another output, or replace it with --overwrite (overwrite=True).",
            )

    def _may_replace(self, image: Input) -> bool:
        line = self._current(image.below.as_posix())
        return line is not None and line["source"][0] == self._manifest.source_of(image.case)[0]

    def _has_outputs(self, line: Line) -> bool:
        """Return whether the outputs listed in a line exist and have the listed sizes."""
        return all(
            name in self._found and self._found[name].size == size
            for name, size in line["files"].items()
        )

    def _current(self, name: str) -> Line | None:
        """Return the last line about an image; None if it is one of another call."""
        line = self._last.get(name)
        is_current = line is not None and line["time"] > self._last_of_others.get(name, -1.0)
        return line if is_current else None

    def _start(self) -> None:
        """Upload the batch in a thread, once those before it are uploaded."""
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
            batch, self._batch, self._batch_bytes, self._timer = self._batch, [], 0, None
            if batch:
                self._uploads.append(self._pool.submit(self._upload_batch, batch))

    def _wait(self, *, only_finished: bool = False) -> None:
        """Wait for uploads, or only look at those that have ended; raise their exceptions."""
        with self._guard:
            ended = [one for one in self._uploads if one.done() or not only_finished]
        for upload in ended:
            wait([upload])  # If this is interrupted, `stop` waits for it.
            with self._guard:
                self._uploads.remove(upload)
            upload.result()

    def _upload_batch(self, batch: Sequence[tuple[Line, Mapping[str, Path]]]) -> None:
        name = self._note([{"image": line["image"], "source": line["source"]} for line, _ in batch])
        files = {key: path for _, files in batch for key, path in files.items()}
        self._remote.put_all(files)
        self._note([line for line, _ in batch])
        self._forget_log(name)
        for key, path in files.items():
            self._found[key] = RemoteFile(key, path.stat().st_size, "")
            path.unlink()

    def _note(self, lines: Sequence[Line]) -> str:
        """Write a log file with new lines, and return its name.

        Their time is later than that of all earlier lines about the images, also if the clock of
        this machine is slow.
        """
        names = [line["image"] for line in lines]
        known = [line["time"] for name in names if (line := self._last.get(name)) is not None]
        known += [self._last_of_others[name] for name in names if name in self._last_of_others]
        now = round(max([time.time(), *(before + 0.001 for before in known)]), 3)
        timed = [{**line, "time": now} for line in lines]
        name = self._write_log(timed)
        self._last.update({line["image"]: line for line in timed})
        return name

    def _write_log(self, lines: Iterable[Line]) -> str:
        """Write lines to a new log file, which no other process uses, and return its name."""
        name = f"{LOG_FOLDER}{uuid.uuid4().hex}.jsonl"
        content = [{"made_by": self._manifest.digest}, *lines]
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in content)
        self._remote.put_bytes(text.encode(), name)
        self._logs.append(name)
        return name

    def _forget_log(self, name: str) -> None:
        self._remote.remove(name)
        self._logs.remove(name)

    def _read_logs(self) -> dict[str, RemoteFile]:
        """Read all log files, and return all files at the URL."""
        while True:
            found = self._remote.list_files()
            logs = [name for name in found if LOG_NAME.fullmatch(name)]
            with ThreadPoolExecutor(TRANSFERS) as pool:
                contents = list(pool.map(self._read_log, logs))
            if None not in contents:
                break  # Otherwise, another process has merged a log in the meantime.
        for name, content in zip(logs, contents, strict=True):
            header, *lines = [*map(parse_line, (content or b"").splitlines())] or [None]
            self._add_log(name, header or {}, filter(_is_complete, lines))
        return found

    def _add_log(self, name: str, header: Line, lines: Iterable[Line | None]) -> None:
        """Keep the last of the lines about each image, of calls like this one and of others."""
        is_ours = header.get("made_by") == self._manifest.digest
        times = {} if is_ours else self._logs_of_others.setdefault(name, {})
        if is_ours:
            self._logs.append(name)
        for line in lines:
            assert line is not None
            image = line["image"]
            line.setdefault("time", 0.0)
            if not is_ours:
                times[image] = max(line["time"], times.get(image, 0.0))
                self._last_of_others[image] = max(
                    times[image], self._last_of_others.get(image, 0.0)
                )
            elif image not in self._last or _order_of(line) >= _order_of(self._last[image]):
                self._last[image] = line

    def _read_log(self, name: str) -> bytes | None:
        try:
            return self._remote.read_bytes(name)
        except DataError as error:
            if error.code != "file_not_found":
                raise
            return None

    def _merge_logs(self) -> None:
        """Replace the log files that this call has read or written by a single one.

        It also contains what similar calls have started, which may be interrupted or still running.
        Log files of other calls are removed if outputs of all their images were replaced.
        """
        former = list(self._logs)
        current = [line for name, line in self._last.items() if self._current(name) is not None]
        if len(former) > 1:
            self._write_log(current)
            for name in former:
                self._forget_log(name)
        for name, times in self._logs_of_others.items():
            if times and all(self._current(image) is not None for image in times):
                self._remote.remove(name)

    def _write_table(self) -> None:
        """Upload the table of all images, with the rows of earlier calls whose outputs exist."""
        if not self._writer.writes_images_table:
            return
        lines = [self._current(name) or {} for name in sorted(self._last)]
        rows = [
            {"image": line["image"], **row}
            for line in lines
            if "files" in line and self._has_outputs(line)
            for row in line["rows"]
        ]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if rows:
            self._remote.put_bytes(to_csv(columns, rows), IMAGES_TABLE)


def _is_complete(line: Line | None) -> bool:
    """Return whether a line of a log has the form that this module writes; others are ignored."""
    if line is None or not isinstance(line.get("image"), str):
        return False
    source = line.get("source")
    has_source = isinstance(source, list) and bool(source)
    has_outputs = isinstance(line.get("files"), dict) and isinstance(line.get("rows"), list)
    has_time = isinstance(line.get("time", 0.0), (int, float))
    return has_source and has_time and ("files" not in line or has_outputs)


def _order_of(line: Line) -> tuple[float, bool]:
    """Return what the last of several lines is decided by; at one time, the beginning is first."""
    return line["time"], "files" in line


def _without_suffix(name: str) -> str:
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{io.stem_of(Path(tail))}"
