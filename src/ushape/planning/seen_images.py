"""Images that the weights of a run were trained or selected on, including those of earlier runs."""

from __future__ import annotations

from dataclasses import dataclass

from ushape import config
from ushape.errors import ConfigError, RunError
from ushape.io.files import read_sealed_json, write_sealed_json
from ushape.planning.run import Run
from ushape.planning.start_decision import load_decision
from ushape.types import Box


@dataclass(frozen=True, kw_only=True)
class SeenImages:
    """Images that weights were trained or selected on."""

    images: tuple[str, ...] = ()
    """Names of the images by content, as `name_image` returns them, sorted."""

    is_complete: bool = False
    """Whether these are all; false if the origin of any weights is not known."""


def name_image(checksum: str, page: int | None, box: Box | None) -> str:
    """Return a name of an image by the checksum of its file, and its page and region, if any."""
    return checksum if page is box is None else f"{checksum}:{page}:{box}"


def seen_by(run: Run | None) -> SeenImages:
    """Return the images that the weights of a run have seen: its own and those of its source.

    Args:
        run: None: weights whose training is not known.

    Raises:
        RunError: if a file of the run is damaged.
    """
    if run is None or not (run.cases_path.is_file() and run.splits_path.is_file()):
        return SeenImages()
    splits, known = run.load_splits(), run.image_checksums()
    used = (*splits.train, *splits.validation)
    before = _seen_before(run)
    own = {name_image(*known[case_id]) for case_id in used if case_id in known}
    return SeenImages(
        images=tuple(sorted(own.union(before.images))),
        is_complete=before.is_complete and all(case_id in known for case_id in used),
    )


def save_seen(run: Run, source: Run | None) -> None:
    """Write which images the initial weights of a run have seen."""
    write_sealed_json(run.seen_images_path, config.to_dict(seen_by(source)))


def _seen_before(run: Run) -> SeenImages:
    """Return the images that the initial weights of a run have seen."""
    decision = load_decision(run)
    if run.load_plan().start is None or (decision is not None and decision.taken == "usual"):
        return SeenImages(is_complete=True)
    path, hint = run.seen_images_path, "Copy the complete run folder again."
    if not path.exists():  # A run of an earlier version.
        return SeenImages()
    values = read_sealed_json(path, RunError, code="damaged_run", hint=hint)
    try:
        return config.from_dict(SeenImages, values, source=str(path))
    except ConfigError as error:
        raise RunError(error.message, code="damaged_run", hint=hint) from None
