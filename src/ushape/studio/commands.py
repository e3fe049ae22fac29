"""Arguments of the commands that the page starts."""

from __future__ import annotations

from pathlib import Path

from ushape.studio.learning import AnnotatedImage, label_settings, training_command
from ushape.studio.project import Project

ENOUGH_MASKS = 8
"""Number of images with masks from which the first training sets some of them apart by itself."""


def training_arguments(
    project: Project, folder: Path, output: Path, minutes: float, *, again: bool
) -> list[str]:
    """Return the arguments of `ushape` for training.

    Args:
        folder: Folder for the table of the images, if one is needed.
        again: Whether it starts from the last run.
    """
    usable = project.runs.usable()
    if not usable and (command := _first_training(project, output, minutes)) is not None:
        return command
    groups = project.parts.groups()
    return training_command(
        [_annotated_image(project, one, groups.get(one)) for one in project.images],
        folder,
        output=output,
        minutes=minutes,
        start_from=usable[-1] if again else None,
        splits=not usable and _can_split(project),
        labels=project.label_config(),
    )


def check_arguments(project: Project, output: Path) -> list[str]:
    """Return the arguments of `ushape` for a check of the data."""
    arguments = [*_data_arguments(project), *data_settings(project), "-o", str(output)]
    return ["check", *arguments]


def data_settings(project: Project) -> list[str]:
    """Return the options by which commands read masks that were saved on the page."""
    chosen = list[str]()
    if project.settings.meaning is not None and project.target.is_native:
        config = project.label_config()
        chosen += label_settings(config, None)
    if sum(one.mask is not None for one in project.images.values()) < ENOUGH_MASKS:
        chosen += ["split.test_fraction=0", "split.validation_fraction=0"]
    return [part for setting in chosen for part in ("--set", setting)]


def _first_training(project: Project, output: Path, minutes: float) -> list[str] | None:
    """Return the arguments of a training run that splits the user's data; None for few masks."""
    images = project.images.values()
    complete = [one for one in images if one.mask is not None and not project.settings.apart]
    if len(complete) < ENOUGH_MASKS or project.settings.save == "separate":
        return None
    if project.settings.test:  # Of a run that was stopped before it had weights.
        return None
    if project.saver.waiting or any(map(project.is_corrected, project.images)):
        return None
    return ["train", *_data_arguments(project), "-o", str(output), "--minutes", f"{minutes:g}"]


def _can_split(project: Project) -> bool:
    """Return whether a first training sets some of the images apart by itself."""
    images = project.images
    complete = sum(project.annotated(one) == 1 for one in images)
    return complete >= ENOUGH_MASKS and all(project.parts.of(one) != "test" for one in images)


def _annotated_image(project: Project, image_id: str, group: str | None) -> AnnotatedImage:
    share = project.annotated(image_id)
    return AnnotatedImage(
        id=image_id,
        image=project.image(image_id).case.image,
        mask=project.masks.for_training(image_id) if share > 0 else None,
        annotated=share,
        group=group,
        part="test" if project.parts.of(image_id) == "test" else "train",
    )


def _data_arguments(project: Project) -> list[str]:
    listing = project.listing
    masks = ["--masks", str(listing.masks)] if listing.masks is not None else []
    return [str(listing.data), *masks]
