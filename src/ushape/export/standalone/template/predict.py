"""Predict masks of images with a trained network: python predict.py IMAGE ... -o OUT.

Needs onnxruntime, numpy and Pillow; the network and its settings are in the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import onnxruntime
    from image_files import (
        SUFFIXES,
        ImageError,
        MaskEncoding,
        as_stored,
        read_image,
        suffix_of,
        write_mask,
    )
    from objects import Cleaning, Separation, clean_classes, number_objects, separate
    from resampling import Grid, Intensity, Normalization
    from tiles import LegalSizes, Symmetry, Tiling, predict_image
except ModuleNotFoundError as error:
    print(f"{error}. To install it: pip install -r requirements.txt", file=sys.stderr)
    raise SystemExit(2) from None

FOLDER = Path(__file__).parent

FIRST_CHANNEL = "_0000"
"""End of the names of nnU-Net's images."""

FAILED = 2
"""Exit code if an image could not be predicted."""


@dataclass(frozen=True)
class Member:
    """A trained network with its preprocessing."""

    session: onnxruntime.InferenceSession
    grid: Grid
    intensity: Intensity
    tiling: Tiling


@dataclass(frozen=True)
class ClassRule:
    """Threshold and cleaning of one class or region."""

    classes: tuple[int, ...]
    """Class indices; the first one is written."""

    threshold: float
    cleaning: Cleaning


@dataclass(frozen=True)
class Model:
    """Networks whose probabilities are averaged, and the rule that decides the classes."""

    members: tuple[Member, ...]
    channels: int
    """Number of channels of an image."""

    is_exclusive: bool
    """Whether classes exclude each other (softmax), or have one sigmoid channel each."""

    rules: tuple[ClassRule, ...]
    """One for each foreground class or region."""

    values: tuple[int, ...]
    """Mask value of each class, background first."""

    separation: Separation | None
    encoding: MaskEncoding

    @property
    def class_channels(self) -> int:
        """Number of probabilities of a pixel; another output is the distance to the border."""
        return len(self.rules) + self.is_exclusive

    def predict(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the classes of an image, and the numbers of its objects if they are separated.

        Shapes:
            image: (C, y, x) -> (y, x) uint8, and (y, x) integers.
        """
        outputs = self._average_members(image)
        classes = self._decide(outputs[: self.class_channels])
        if self.separation is None:
            return classes, None
        return separate(classes, outputs[self.class_channels], self.separation)

    def _average_members(self, image: np.ndarray) -> np.ndarray:
        """Return the mean outputs (K, y, x) of all networks."""
        found = (self._run(member, image) for member in self.members)
        if len(self.members) == 1:
            return next(found)
        first = next(found)
        mean = np.zeros_like(first)
        mean += first
        for count, own in enumerate(found, 2):
            mean += (own - mean) / count
        return mean

    def _run(self, member: Member, image: np.ndarray) -> np.ndarray:
        """Return the outputs (K, y, x) of one network."""
        placed = member.grid.place(image)
        normalized = member.intensity.of(placed).apply(placed)

        def network(tiles: np.ndarray) -> np.ndarray:
            return self._to_probabilities(member.session.run(None, {"image": tiles})[0])

        outputs = predict_image(network, normalized, member.tiling)
        if not np.isfinite(outputs).all():
            raise ImageError("The network computes probabilities that are NaN for this image.")
        parts = outputs[: self.class_channels], outputs[self.class_channels :]
        restored = [member.grid.restore(part, image.shape[1:]) for part in parts if len(part)]
        return np.concatenate(restored)

    def _to_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Convert logits (B, K, *T) to probabilities."""
        if not self.is_exclusive:
            return _sigmoid(logits)
        own, rest = logits[:, : self.class_channels], logits[:, self.class_channels :]
        shares = own - own.max(axis=1, keepdims=True)
        np.exp(shares, out=shares)
        shares /= shares.sum(axis=1, keepdims=True)
        return np.concatenate([shares, _sigmoid(rest)], axis=1) if rest.size else shares

    def _decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Decide the class of each pixel from probabilities (K, y, x)."""
        classes = np.zeros(probabilities.shape[1:], dtype=np.uint8)
        if self.is_exclusive:
            best = probabilities[0].copy()
            for index, rule in enumerate(self.rules, 1):
                odds = probabilities[index] * ((1 - rule.threshold) / rule.threshold)
                classes[odds > best] = index
                np.maximum(best, odds, out=best)
        else:
            for rule, probability in zip(self.rules, probabilities, strict=True):
                classes[probability >= rule.threshold] = rule.classes[0]
        cleanings = [rule.cleaning for rule in self.rules]
        return clean_classes(classes, [rule.classes for rule in self.rules], cleanings)

    def values_of(self, classes: np.ndarray) -> np.ndarray:
        """Convert class indices (y, x) to mask values."""
        return np.array(self.values)[classes]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # 1 / (1 + infinity) is 0.
        shares = np.exp(np.negative(logits))
    shares += 1
    return np.divide(np.float32(1), shares, out=shares)


def load_model(folder: Path = FOLDER) -> Model:
    """Load the networks and their settings."""
    stored = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    rules = [
        ClassRule(tuple(rule["classes"]), rule["threshold"], Cleaning(**rule["cleaning"]))
        for rule in stored["rules"]
    ]
    encoding = dict(stored["encoding"])
    if encoding["palette"] is not None:
        encoding["palette"] = tuple(map(tuple, encoding["palette"]))
    return Model(
        members=tuple(_load_member(folder, member) for member in stored["networks"]),
        channels=stored["channels"],
        is_exclusive=stored["is_exclusive"],
        rules=tuple(rules),
        values=tuple(stored["values"]),
        separation=Separation(**stored["separation"]) if stored["separation"] else None,
        encoding=MaskEncoding(**encoding),
    )


def _load_member(folder: Path, stored: dict[str, Any]) -> Member:
    intensity, tiling = stored["intensity"], stored["tiling"]
    columns = intensity["normalization"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # Errors are exceptions in any case.
    return Member(
        session=onnxruntime.InferenceSession(
            folder / stored["file"], options, providers=["CPUExecutionProvider"]
        ),
        grid=Grid(**stored["grid"]),
        intensity=Intensity(
            kind=intensity["kind"],
            percentiles=tuple(intensity["percentiles"]),
            normalization=Normalization(**columns) if columns else None,
        ),
        tiling=Tiling(
            **tiling
            | {
                "legal_sizes": tuple(LegalSizes(**own) for own in tiling["legal_sizes"]),
                "symmetries": tuple(
                    Symmetry(tuple(own["mirror_axes"]), own["is_transposed"])
                    for own in tiling["symmetries"]
                ),
            }
        ),
    )


def find_images(named: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """Return each image with the path of its mask, without suffix, below the output folder.

    Folders are searched and sorted, without hidden ones and the output folder. If all names end
    with the `_0000` of nnU-Net, it is left out.
    """
    found: list[tuple[Path, Path]] = []
    masks = Path(os.path.realpath(output))
    for path in named:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if suffix_of(one) in SUFFIXES)
            for one in filter(Path.is_file, inside):
                below = one.relative_to(path)
                is_hidden = any(part.startswith(".") for part in below.parts)
                if not is_hidden and masks not in Path(os.path.realpath(one)).parents:
                    found.append((one, below))
        else:
            found.append((path, Path(path.name)))
    stems = [below.name[: len(below.name) - len(suffix_of(below))] for _, below in found]
    if all(stem.endswith(FIRST_CHANNEL) for stem in stems) and (
        len(found) > 1 or all(path.parent.name.startswith("images") for path, _ in found)
    ):
        stems = [stem.removesuffix(FIRST_CHANNEL) for stem in stems]
    return [(path, below.with_name(stem)) for (path, below), stem in zip(found, stems, strict=True)]


def predict_file(model: Model, path: Path, mask: Path, *, overwrite: bool) -> Iterator[Path]:
    """Predict an image file, and yield the files that were written, the mask last.

    Raises:
        ImageError: if the image cannot be predicted, or a file exists already.
    """
    writes_numbers = model.separation is not None and model.separation.writes_numbers
    numbers = mask.with_name(f"{mask.name.removesuffix(model.encoding.suffix)}_instances.tif")
    for target in [mask, numbers] if writes_numbers else [mask]:
        if target.exists() and not overwrite:
            raise ImageError(f"{target} already exists. Add --overwrite to replace it.")
    pixels = read_image(path)
    classes, labels = model.predict(_fit_channels(pixels.array, model.channels))
    orientation = pixels.orientation if model.encoding.orientation == "stored" else 1
    mask.parent.mkdir(parents=True, exist_ok=True)
    if labels is not None and writes_numbers:
        labels = number_objects(as_stored(labels, orientation))
        dtype = "uint16" if labels.max(initial=0) < 1 << 16 else "uint32"
        write_mask(numbers, labels, MaskEncoding("values", dtype, None, False, "displayed", ".tif"))
        yield numbers
    write_mask(mask, model.values_of(as_stored(classes, orientation)), model.encoding)
    yield mask


def _fit_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Repeat a gray image if colors are expected.

    Raises:
        ImageError: if the number of channels is another one.
    """
    if len(image) == 1 and channels == 3:
        return np.repeat(image, 3, axis=0)
    if len(image) != channels:
        raise ImageError(
            f"The image has {len(image)} channels, but the model expects {channels}. Convert it."
        )
    return image


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict the images that are named on the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description="Predict masks of images.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image or folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the masks")
    parser.add_argument("--overwrite", action="store_true", help="replace existing masks")
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # Names of files may be any bytes.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr, unused-ignore]
    try:
        model = load_model()
    except Exception as error:
        print(f"{FOLDER}: the model cannot be loaded ({error}).", file=sys.stderr)
        return FAILED
    if options.output.exists() and not options.output.is_dir():
        print(f"{options.output} is a file, not a folder for masks.", file=sys.stderr)
        return FAILED
    images = find_images(options.images, options.output)
    if not images and os.path.realpath(options.output) in map(os.path.realpath, options.images):
        print(f"{options.output} is the folder of the images; choose another one.", file=sys.stderr)
        return FAILED
    if not images:
        print("No images were found.", file=sys.stderr)
        return FAILED
    failed = _predict_all(model, images, options.output, overwrite=options.overwrite)
    if failed:
        print(f"{failed} of {len(images)} images could not be predicted.", file=sys.stderr)
    return FAILED if failed else 0


def _predict_all(
    model: Model, images: Sequence[tuple[Path, Path]], output: Path, *, overwrite: bool
) -> int:
    """Predict images one after the other, and return how many could not be predicted."""
    failed = 0
    sources = {os.path.realpath(path) for path, _ in images}
    owners: dict[Path, Path] = {}
    for path, below in images:
        mask = output / below.with_name(below.name + model.encoding.suffix)
        try:
            if owners.setdefault(mask, path) != path:
                raise ImageError(
                    f"Its mask would have the same name as that of {owners[mask]}. Use another "
                    "output folder."
                )
            if os.path.realpath(mask) in sources:
                raise ImageError("The mask would replace an image. Choose another folder with -o.")
            for written in predict_file(model, path, mask, overwrite=overwrite):
                print(written)
        except Exception as error:  # The other images are predicted.
            failed += 1
            print(f"{path}: {str(error) or type(error).__name__}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
