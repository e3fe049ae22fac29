"""Fetch a dataset by name into a folder, completely or not at all."""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ushape.console import Console
from ushape.datasets import SOURCES, Archive, Source, arrange, count_cases
from ushape.datasets.download import (
    KaggleClient,
    check_file,
    download,
    download_from_kaggle,
    kagglehub,
)
from ushape.datasets.unpack import NoRoomError, unpack
from ushape.errors import ConfigError, DataError
from ushape.interrupts import REPEAT, hint_after_interrupt
from ushape.io.lock import LOCK_FILE, locked


def fetch(
    name: str,
    *,
    to: Path | str = "data",
    address: str | None = None,
    sha256: str | None = None,
    client: KaggleClient | None = None,
    quiet: bool = False,
) -> Path:
    """Download, check and unpack a public dataset.

    Some datasets require a Kaggle account. Files are downloaded to a hidden folder, which is
    renamed once the dataset is complete. Repeat the call to continue an interrupted download.

    Args:
        name: Name of the dataset: lgg, isbi2012 or carvana.
        to: Folder in which the folder of the dataset is created.
        address: Zip or tar archive (https address or file) to use instead of the official source.
        sha256: Expected SHA-256 checksum of that archive, in hexadecimal.
        client: Kaggle client, in place of the kagglehub package (only in Python).
        quiet: Print nothing.

    Returns:
        The folder of the dataset.

    Raises:
        ConfigError: if the name is unknown, or if the Kaggle client, account or consent is missing.
        DataError: if the download fails or is not the dataset, or if the folder exists.
    """
    source, say = _source(name), Console(quiet=quiet).say
    if sha256 is not None and address is None:
        raise ConfigError(
            "--sha256 was specified without an archive.",
            code="missing_argument",
            hint="Specify the archive with --from.",
        )
    to = Path(to).expanduser()
    target, work = to / name, to / f".{name}.partial"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        return _check_existing(target, source, say)
    with locked(work), hint_after_interrupt(REPEAT), _working_in(work, to):
        cases = _fetch_new(source, address, sha256, client, target, work, say)
    say(f"Dataset: {target} ({cases} cases)")
    return target


@contextmanager
def _working_in(work: Path, to: Path) -> Iterator[None]:
    """Remove unpacked files at the end, and the work folder unless it contains a download.

    Raises:
        DataError: if a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or to}: {error.strerror or str(error)[:300]}.",
            code="write_failed",
            hint="Check the free space and the permissions; finished downloads are kept.",
        ) from None
    finally:
        shutil.rmtree(work / "unpacked", ignore_errors=True)
        files = [path for path in work.rglob("*") if path.is_file() and path.name != LOCK_FILE]
        if work.is_dir() and not files:
            shutil.rmtree(work, ignore_errors=True)


def _fetch_new(
    source: Source,
    address: str | None,
    sha256: str | None,
    client: KaggleClient | None,
    target: Path,
    work: Path,
    say: Callable[[str], None],
) -> int:
    """Download and unpack into the work folder, and rename it; return the number of cases."""
    say(source.terms)
    unpacked = work / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # Left by a killed attempt; downloads are kept.
    unpacked.mkdir(parents=True)
    if address is not None:
        _from_address(Archive(name="", sha256=sha256), address, source, work, say)
    elif source.address is not None:
        _from_address(source.archives[0], source.address, source, work, say)
    else:
        _from_kaggle(source, client or kagglehub(), unpacked, say)
    found = arrange(unpacked, source)
    cases = count_cases(found, source)
    _compare(cases, source, is_official=address is None, say=say)
    if target.exists():
        target.rmdir()  # It is an empty folder.
    found.replace(target)
    shutil.rmtree(work)
    return cases


def _source(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    near = difflib.get_close_matches(name.lower(), SOURCES, cutoff=0.4)
    raise ConfigError(
        f"Unknown dataset {name}.",
        code="unknown_dataset",
        hint=f"{f'Did you mean {near[0]}? ' if near else ''}Available: {', '.join(SOURCES)}.",
    )


def _check_existing(target: Path, source: Source, say: Callable[[str], None]) -> Path:
    """Return a folder that already contains the dataset: fetched before, or the user's copy.

    Raises:
        DataError: if its folders are missing.
    """
    missing = [folder for folder in source.folders if not (target / folder).is_dir()]
    if missing:
        raise DataError(
            f"{target} exists, but lacks the folder {' and the folder '.join(missing)}.",
            code="unexpected_dataset",
            hint="Move it away, or choose another folder with --to.",
        )
    cases = count_cases(target, source)
    say(f"{target} already exists, with {cases} of {source.cases} cases. Nothing was downloaded.")
    return target


def _compare(cases: int, source: Source, *, is_official: bool, say: Callable[[str], None]) -> None:
    """Compare the number of cases with the expected one.

    Raises:
        DataError: if the official source has another number.
    """
    if cases == source.cases:
        return
    if is_official:
        raise DataError(
            f"{source.page} has {cases} cases, but {source.cases} were expected.",
            code="unexpected_dataset",
            hint="The source has changed. To use it anyway, download it yourself and specify the "
            "archive with --from.",
        )
    say(f"Note: the archive has {cases} cases; the whole dataset has {source.cases}.")


def _from_address(
    archive: Archive, address: str, source: Source, work: Path, say: Callable[[str], None]
) -> None:
    unpacked = work / "unpacked"
    if "://" not in address:
        file = Path(address).expanduser()
        if not file.is_file():
            raise DataError(
                f"{file} is a folder." if file.is_dir() else f"{file} does not exist.",
                code="file_not_found",
                hint="Specify a zip or tar archive, or its web address, with --from.",
            )
        check_file(file, str(file), size_bytes=archive.size_bytes, sha256=archive.sha256)
        unpack(file, unpacked, most_bytes=source.most_bytes)
        return
    # Each address has its own folder, so that one download never continues another.
    inbox = work / hashlib.sha256(address.encode()).hexdigest()[:12]
    last = unquote(urlsplit(address).path).rsplit("/", 1)[-1]
    file = inbox / (re.sub(r"[^\w.-]", "_", last).strip(".") or "archive")
    try:
        if file.exists():
            say(f"{file.name} is already downloaded.")
            check_file(file, address, size_bytes=archive.size_bytes, sha256=archive.sha256)
        else:
            size, sha256 = archive.size_bytes, archive.sha256
            download(address, file, size_bytes=size, sha256=sha256, say=say)
        unpack(file, unpacked, most_bytes=source.most_bytes)
    except NoRoomError:
        raise
    except DataError:
        file.unlink(missing_ok=True)  # Otherwise the next call would use it again.
        raise


def _from_kaggle(
    source: Source, client: KaggleClient, unpacked: Path, say: Callable[[str], None]
) -> None:
    say(f"Downloading from {source.page} with your Kaggle account.")
    if source.dataset is not None:
        cached = download_from_kaggle(source, client)
        shutil.copytree(cached, unpacked, dirs_exist_ok=True)
        say(f"The Kaggle client keeps its own copy in {cached}, which you may delete.")
        return
    for archive in source.archives:
        file = download_from_kaggle(source, client, archive.name)
        check_file(file, archive.name, size_bytes=archive.size_bytes, sha256=archive.sha256)
        unpack(file, unpacked, most_bytes=source.most_bytes)
        say(f"The Kaggle client keeps {archive.name} in {file.parent}; you may delete it.")
