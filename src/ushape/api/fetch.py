"""The verb: from a name to a folder with the data set, whole or not at all."""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ushape.console import Console
from ushape.datasets import SOURCES, Archive, Source, arrange, count_cases
from ushape.datasets.download import (
    KaggleClient,
    check_file,
    download,
    download_archive,
    download_dataset,
    kagglehub,
)
from ushape.datasets.unpack import NoRoomError, unpack
from ushape.errors import ConfigError, DataError


def fetch(
    name: str,
    to: Path | str = "data",
    *,
    address: str | None = None,
    sha256: str | None = None,
    client: KaggleClient | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Downloads, checks and unpacks a data set into `to`/`name`; what is there already is taken.

    All happens in a hidden folder beside, which is renamed at the end: the data set is there
    whole or not at all. A download that was cut off is continued by the next call.

    Args:
        address: Zip or tar, as web address or file, in place of the official source.
        sha256: Of that archive, hexadecimal.
        client: In place of the kagglehub package.

    Returns:
        The data set's folder.

    Raises:
        ConfigError: an unknown name, a wrong address, no Kaggle client, account or consent.
        DataError: the download failed, or is not the data set; the folder is taken.
    """
    source, say = _source(name), say or Console().say
    if sha256 is not None and address is None:
        raise ConfigError(
            "A checksum without an address.", hint="It is that of the archive named with --from."
        )
    to = Path(to).expanduser()
    target, work = to / name, to / f".{name}.partial"
    unpacked = work / "unpacked"
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            return _take(target, source, say)
        say(source.terms)
        shutil.rmtree(unpacked, ignore_errors=True)  # Of a killed attempt; downloads are kept.
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
            target.rmdir()  # An empty folder.
        found.replace(target)
        shutil.rmtree(work)
    except OSError as error:
        raise DataError(
            f"{error.filename or to}: {error.strerror or str(error)[:300]}.",
            hint="Check the free space and that you may write there; what has arrived is kept.",
        ) from None
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
        if work.is_dir() and not any(path.is_file() for path in work.rglob("*")):
            shutil.rmtree(work, ignore_errors=True)
    say(f"{cases} cases in {target}")
    return target


def _source(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    near = difflib.get_close_matches(name.lower(), SOURCES, cutoff=0.4)
    raise ConfigError(
        f"No data set {name}.",
        hint=f"{f'Did you mean {near[0]}? ' if near else ''}Known are {', '.join(SOURCES)}.",
    )


def _take(target: Path, source: Source, say: Callable[[str], None]) -> Path:
    """Data that are there: a finished fetch, or the user's own copy in the same form."""
    missing = [folder for folder in source.folders if not (target / folder).is_dir()]
    if missing:
        raise DataError(
            f"{target} is there, but has no {' and no '.join(missing)} in it.",
            hint="Move it away, or choose another folder with --to.",
        )
    cases = count_cases(target, source)
    say(f"{target} is there already, with {cases} of {source.cases} cases; nothing to do.")
    return target


def _compare(cases: int, source: Source, *, is_official: bool, say: Callable[[str], None]) -> None:
    if cases == source.cases:
        return
    if is_official:
        raise DataError(
            f"{source.page}: {cases} cases, expected {source.cases}.",
            hint="The source has changed. To take it as it is, download it by hand and name the "
            "archive with --from.",
        )
    say(f"Note: {cases} cases; the whole data set has {source.cases}.")


def _from_address(
    archive: Archive, address: str, source: Source, work: Path, say: Callable[[str], None]
) -> None:
    unpacked = work / "unpacked"
    if "://" not in address:
        file = Path(address).expanduser()
        if not file.is_file():
            raise DataError(
                f"{file}: {'a folder' if file.is_dir() else 'no such file'}.",
                hint="--from takes a zip or tar, or its web address. A folder is used as it is.",
            )
        check_file(file, str(file), size_bytes=archive.size_bytes, sha256=archive.sha256)
        unpack(file, unpacked, most_bytes=source.most_bytes)
        return
    # A folder of its own per address: the rest of one file must not continue another.
    inbox = work / hashlib.sha256(address.encode()).hexdigest()[:12]
    last = unquote(urlsplit(address).path).rsplit("/", 1)[-1]
    file = inbox / (re.sub(r"[^\w.-]", "_", last).strip(".") or "archive")
    try:
        if file.exists():
            say(f"{file.name} has arrived before.")
            check_file(file, address, size_bytes=archive.size_bytes, sha256=archive.sha256)
        else:
            size, sha256 = archive.size_bytes, archive.sha256
            download(address, file, size_bytes=size, sha256=sha256, say=say)
        unpack(file, unpacked, most_bytes=source.most_bytes)
    except NoRoomError:
        raise
    except DataError:
        file.unlink(missing_ok=True)  # A whole file that is no good would be taken again.
        raise


def _from_kaggle(
    source: Source, client: KaggleClient, unpacked: Path, say: Callable[[str], None]
) -> None:
    say(f"From {source.page}, with your Kaggle account")
    if source.dataset is not None:
        cached = download_dataset(source, client)
        shutil.copytree(cached, unpacked, dirs_exist_ok=True)
        say(f"Kaggle's client keeps its own copy in {cached}; you may delete it.")
        return
    for archive in source.archives:
        file = download_archive(source, archive.name, client)
        check_file(file, archive.name, size_bytes=archive.size_bytes, sha256=archive.sha256)
        unpack(file, unpacked, most_bytes=source.most_bytes)
        say(f"Kaggle's client keeps its own {archive.name} in {file.parent}; you may delete it.")
