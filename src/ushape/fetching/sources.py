"""The data sets that `ushape fetch` knows, and the verb itself."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ushape.console import Console
from ushape.errors import ConfigError, DataError
from ushape.fetching.download import download
from ushape.fetching.unpack import unpack


class KaggleClient(Protocol):
    """What is used of the kagglehub package; tests have a stand-in."""

    def dataset_download(self, handle: str) -> str:
        """Folder with the data set's files."""
        ...

    def competition_download(self, handle: str, path: str) -> str:
        """One file of a competition."""
        ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set comes from."""

    folder: str
    """What the data set's own folder is called: where it is, the data are."""

    terms: str
    """Licence and citation, in a sentence."""

    dataset: str | None = None
    """Handle of a Kaggle data set."""

    competition: str | None = None
    """Handle of a Kaggle competition."""

    files: tuple[str, ...] = ()
    """Archives of the competition."""


SOURCES = {
    "lgg": Source(
        folder="kaggle_3m",
        dataset="mateuszbuda/lgg-mri-segmentation",
        terms="Brain MRI, CC BY-NC-SA 4.0; cite Buda et al. 2019, Mazurowski et al. 2017.",
    ),
    "carvana": Source(
        folder="train",
        competition="carvana-image-masking-challenge",
        files=("train.zip", "train_masks.zip"),
        terms="Cars, under the rules of Kaggle's Carvana competition.",
    ),
    "isbi2012": Source(
        folder="train",
        terms="EM sections, for research; cite Arganda-Carreras et al. 2015, Cardona et al. 2010.",
    ),
}


def fetch(
    name: str,
    to: Path | str = "data",
    *,
    address: str | None = None,
    sha256: str | None = None,
    client: KaggleClient | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Downloads, checks and unpacks a data set into TO/NAME; data that are there are taken.

    Nothing is left half-done: everything happens in a folder beside, which is renamed at the end.
    A download that was cut off is continued.

    Args:
        name: lgg, isbi2012 or carvana.
        address: A zip, as http(s) address or file, in place of Kaggle.
        sha256: Of that zip.
        client: In place of the kagglehub package.

    Raises:
        ConfigError: an unknown name; no address where there is no official one; no Kaggle client
            or credentials.
        DataError: the download failed or is not the data set.
    """
    say = say or Console().say
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1, cutoff=0.4)
        raise ConfigError(
            f"No data set {name}.",
            hint=f"{'Near' if near else 'Known'} names: {', '.join(near or SOURCES)}.",
        )
    source, target = SOURCES[name], Path(to) / name
    if target.exists():
        if not (target / source.folder).is_dir():
            raise DataError(
                f"{target} is there, but has no {source.folder} in it.",
                hint="Move it away, or choose another folder with --to.",
            )
        say(f"{target} is there already.")
        return target
    say(source.terms)
    work = Path(to) / f".{name}.part"
    unpacked = work / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # Of an earlier attempt; downloads are kept.
    if address is not None:
        unpack(_archive(address, work, sha256), unpacked)
    elif source.dataset or source.competition:
        _from_kaggle(source, client or _kagglehub(), unpacked)
    else:
        raise ConfigError(
            f"There is no lasting official address for {name}.",
            hint="Name a zip with --from, an https address or a file of yours.",
        )
    _tidy(unpacked, source)
    unpacked.replace(target)
    shutil.rmtree(work)
    say(f"{sum(path.is_file() for path in target.rglob('*'))} files in {target}")
    return target


def _archive(address: str, work: Path, sha256: str | None) -> Path:
    if "://" in address:
        return download(address, work / "archive.zip", sha256=sha256)
    if not Path(address).is_file():
        raise DataError(f"{address}: no such file.", hint="--from takes a zip or its address.")
    return Path(address)


def _from_kaggle(source: Source, client: KaggleClient, unpacked: Path) -> None:
    page = f"https://www.kaggle.com/{'c' if source.competition else 'datasets'}/"
    page += source.competition or source.dataset or ""
    try:
        if source.dataset:
            shutil.copytree(client.dataset_download(source.dataset), unpacked)
            return
        assert source.competition is not None
        for file in source.files:
            unpack(Path(client.competition_download(source.competition, file)), unpacked)
    except DataError:
        raise
    except Exception as error:  # The client's own errors are of many kinds.
        raise ConfigError(
            f"Kaggle said: {str(error).strip() or type(error).__name__}.",
            hint=f"Log in at {page} and accept the rules there, if any. Make a token under "
            "Settings, API, and save it as ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and "
            "KAGGLE_KEY. Or download the zip by hand and name it with --from.",
        ) from None


def _kagglehub() -> KaggleClient:
    try:
        import kagglehub
    except ImportError:
        raise ConfigError(
            "Kaggle's client is not installed.",
            hint='pip install "ushape[kaggle]"; or download the zip by hand, and name it with '
            "--from.",
        ) from None
    client: KaggleClient = kagglehub
    return client


def _tidy(unpacked: Path, source: Source) -> None:
    """The data set's folder to the top; second copies of it, as in the LGG archive, removed."""
    found = sorted(
        (path for path in unpacked.rglob(source.folder) if path.is_dir()),
        key=lambda path: len(path.parts),
    )
    if not found:
        raise DataError(
            f"No folder {source.folder} in what was fetched.", hint="This is another data set."
        )
    first, *others = found
    names = sorted(path.relative_to(first) for path in first.rglob("*"))
    for other in others:
        if sorted(path.relative_to(other) for path in other.rglob("*")) == names:
            shutil.rmtree(other)
            parent = other.parent
            if parent != unpacked and not any(parent.iterdir()):
                parent.rmdir()
    if first.parent != unpacked:
        for path in list(first.parent.iterdir()):
            path.replace(unpacked / path.name)
