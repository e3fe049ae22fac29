"""Names of the outputs of images below the output folder."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path

from ushape import io
from ushape.inference.output import OutputConfig
from ushape.inference.predictor import Predictor
from ushape.io.files import real_path
from ushape.io.streaming import NIFTI, is_written_in_bands


@dataclass(frozen=True, kw_only=True)
class OutputPaths:
    """Paths of the files that are written for an image, by its path below the input folder."""

    folder: Path | None
    """Output folder; None: no files are written."""

    suffix: str
    """Suffix of the masks."""

    endings: dict[str, str] = field(default_factory=dict)
    """Kinds of the other files, with the ends of their names."""

    @classmethod
    def of(cls, config: OutputConfig, predictor: Predictor) -> OutputPaths:
        suffix = predictor.plan.encoding.suffix
        return cls(folder=config.folder, suffix=suffix, endings=endings_of(config, predictor))

    def mask(self, below: Path) -> Path | None:
        """Return the path of a mask; None if no files are written."""
        return self._with_suffix(below, self.suffix)

    def banded_mask(self, below: Path) -> Path | None:
        """Return the path of a mask in a format that can be written band by band."""
        target = self.mask(below)
        if target is None or is_written_in_bands(target.suffix):
            return target
        if io.suffix_of(below) == ".nii" and io.suffix_of(target) in NIFTI:
            return target
        return self._with_suffix(below, ".tif")

    def present_mask(self, below: Path) -> Path | None:
        """Return the path of the mask that exists; that of `mask` if none exists."""
        target, banded = self.mask(below), self.banded_mask(below)
        if target and not is_present(target) and banded and is_present(banded):
            return banded
        return target

    def _with_suffix(self, below: Path, suffix: str) -> Path | None:
        if self.folder is None:
            return None
        text = str(below)
        return self.folder / (text[: len(text) - len(io.suffix_of(below))] + suffix)

    def beside(self, mask: Path, kind: str) -> Path:
        """Return the path of a file of this kind next to a mask.

        Numbers of objects are a TIFF next to a mask that is one because its own format cannot be
        written band by band.
        """
        ending = self.endings[kind]
        if kind == "instances" and io.suffix_of(mask) != self.suffix:
            ending = "_instances.tif"
        return mask.with_name(io.stem_of(mask) + ending)

    def of_image(self, below: Path, mask: Path | None = None) -> list[Path]:
        """Return the paths of all files of an image, the mask last.

        Args:
            mask: Path of the mask (default: `mask`).
        """
        target = mask or self.mask(below)
        if target is None:
            return []
        return [*(self.beside(target, kind) for kind in self.endings), target]


def endings_of(config: OutputConfig, predictor: Predictor) -> dict[str, str]:
    """Return the kinds of output files next to the mask, with the endings of their names."""
    endings = dict(config.endings)
    if predictor.plan.image_dims == 3:
        # Like the masks, so that they lie on the image in viewers.
        suffix = predictor.plan.encoding.suffix
        suffix = suffix if io.keeps_position(suffix) else ".tif"
        for kind in {"instances", "uncertainty"} & set(endings):
            endings[kind] = f"_{kind}{suffix}"
    return endings


def is_present(path: Path) -> bool:
    """Return whether a file exists; one whose name is too long does not."""
    return is_possible(path) and path.exists()


def is_possible(path: Path) -> bool:
    """Return whether the system allows a file to have this name."""
    try:
        path.lstat()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def without_suffix(path: Path) -> Path:
    """Return the real path of a file without the suffix of its format."""
    resolved = real_path(path)
    return resolved.with_name(io.stem_of(resolved))
