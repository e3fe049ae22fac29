"""A case as a page shows it: image, truth and probabilities, small, and kept in the run folder."""

from __future__ import annotations

import base64
import bisect
import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from ushape.errors import RunError
from ushape.evaluation.scores import CaseScore, mean_dice
from ushape.formatting import size_text
from ushape.inference.decision_rule import DecisionRule
from ushape.io.files import write_bytes
from ushape.labels import IGNORE, LabelSpace, Region
from ushape.transforms.overlay import as_rgb
from ushape.types import Prediction

LONGEST_PX = 512
"""Longest side of a picture that is kept."""

QUALITY = 85
"""Of the image, in WebP's measure; truth and probabilities are kept without loss."""


@dataclass(frozen=True, kw_only=True)
class ShownClass:
    """One class or region of a picture, and how far each pixel is from being of it."""

    region: Region
    threshold: int
    """Percent, 1 to 99."""

    percent: np.ndarray
    """(h, w) uint8, 0 to 100. At least the threshold where the prediction has the class: that is
    so before the picture is made smaller, cleaning and rival classes included."""


@dataclass(frozen=True, kw_only=True)
class CasePicture:
    """A case to be shown."""

    case: str
    group: str
    part: str
    """What of the case is shown, in words; '' for all of it, as it is."""

    image: np.ndarray
    """(h, w, 3) uint8."""

    truth: np.ndarray
    """(h, w) uint8 class indices, labels.IGNORE where the annotator left it open."""

    classes: tuple[ShownClass, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.truth.shape[0], self.truth.shape[1]


def make_picture(
    case_id: str,
    group: str,
    image: np.ndarray,
    truth: np.ndarray,
    prediction: Prediction,
    space: LabelSpace,
    rule: DecisionRule | None = None,
    longest_px: int = LONGEST_PX,
) -> CasePicture:
    """The case, of a volume its plane with the most foreground, made smaller where it is larger.

    Args:
        rule: What made the prediction's classes; None: the likeliest class.

    Shapes:
        image: (C, *S), any dtype; truth: (*S) class indices.
    """
    probabilities, decided, part = prediction.probabilities, prediction.classes, ""
    if truth.ndim == 3:
        plane = _fullest_plane(truth, decided)
        part = f"plane {plane + 1} of {len(truth)}"
        image, probabilities = image[:, plane], probabilities[:, plane]
        truth, decided = truth[plane], decided[plane]
    thresholds = [own.threshold for own in (rule or DecisionRule()).for_space(space)]
    nearness = _nearness(probabilities, space, thresholds)
    picture = CasePicture(
        case=case_id,
        group=group,
        part=part,
        image=as_rgb(image),
        truth=truth.astype(np.uint8),
        classes=tuple(
            _show_class(region, threshold, near, region.of(decided))
            for region, threshold, near in zip(space.scored, thresholds, nearness, strict=True)
        ),
    )
    reduced = reduce_picture(picture, longest_px)
    if reduced is picture:
        return picture
    text = f"{size_text(picture.size)} px reduced to {size_text(reduced.size)}"
    return replace(reduced, part=f"{part}, {text}" if part else text)


def reduce_picture(picture: CasePicture, longest_px: int) -> CasePicture:
    """At most so many pixels a side: image and probabilities averaged, truth by its nearest."""
    height, width = picture.size
    scale = longest_px / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def averaged(plane: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(plane).resize(size, Resampling.BOX))

    return replace(
        picture,
        image=averaged(picture.image),
        truth=np.asarray(Image.fromarray(picture.truth).resize(size, Resampling.NEAREST)),
        classes=tuple(replace(own, percent=averaged(own.percent)) for own in picture.classes),
    )


def save_pictures(folder: Path, pictures: Iterable[CasePicture]) -> None:
    """Writes a file for each, whole or not at all, in place of those that were there."""
    for old in folder.glob("[0-9]" * 5 + ".json"):
        old.unlink()
    for number, picture in enumerate(pictures, start=1):
        content = json.dumps(encode_picture(picture, QUALITY))
        write_bytes(folder / f"{number:05}.json", content.encode())


def load_pictures(folder: Path) -> list[CasePicture]:
    """What `save_pictures` wrote, in its order; none where there is no folder.

    Raises:
        RunError: a file that is damaged, or something else.
    """
    return [_load_picture(path) for path in sorted(folder.glob("*.json"))]


def encode_picture(picture: CasePicture, quality: int) -> dict[str, Any]:
    """As JSON takes it; the planes are data URIs."""
    return {
        "case": picture.case,
        "group": picture.group,
        "part": picture.part,
        "image": _as_webp(picture.image, quality=quality),
        "truth": _as_webp(picture.truth, lossless=True),
        "classes": [
            {
                "name": own.region.name,
                "members": list(own.region.classes),
                "threshold": own.threshold,
                "percent": _as_webp(own.percent, lossless=True),
            }
            for own in picture.classes
        ],
    }


def _load_picture(path: Path) -> CasePicture:
    try:
        return _decode_picture(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(
            f"{path}: no picture of ushape ({type(error).__name__}: {error}).",
            hint="ushape evaluate RUN makes the pictures anew.",
        ) from None


def _decode_picture(stored: Mapping[str, Any]) -> CasePicture:
    """Raises any of the built-in errors where the content is not what was written."""
    picture = CasePicture(
        case=str(stored["case"]),
        group=str(stored["group"]),
        part=str(stored["part"]),
        image=_from_webp(stored["image"]),
        truth=_from_webp(stored["truth"])[..., 0],
        classes=tuple(_decode_class(own) for own in stored["classes"]),
    )
    shapes = {picture.image.shape[:2], picture.size, *(c.percent.shape for c in picture.classes)}
    if len(shapes) > 1:
        raise ValueError("its planes have different sizes")
    members = [index for own in picture.classes for index in own.region.classes or (-1,)]
    if any(not 0 <= index < IGNORE for index in members):
        raise ValueError("classes that are none")
    return picture


def _decode_class(stored: Mapping[str, Any]) -> ShownClass:
    return ShownClass(
        region=Region(name=str(stored["name"]), classes=tuple(map(int, stored["members"]))),
        threshold=int(stored["threshold"]),
        percent=_from_webp(stored["percent"])[..., 0],
    )


def _fullest_plane(truth: np.ndarray, decided: np.ndarray) -> int:
    """The plane with the most foreground in the truth; if it has none, in the prediction."""
    annotated = ((truth > 0) & (truth != IGNORE)).sum(axis=(1, 2))
    found = annotated if annotated.any() else (decided > 0).sum(axis=(1, 2))
    return int(found.argmax())


def _nearness(
    probabilities: np.ndarray, space: LabelSpace, thresholds: list[float]
) -> list[np.ndarray]:
    """For each class or region the threshold up to which a pixel would be of it, 0 to 1.

    That is the probability itself, but where classes exclude each other: there it is the share
    against the strongest rival, whose own threshold stays (`decision.ClassRule`).
    """
    if not space.is_exclusive:
        return list(probabilities)
    factors = np.array([1.0, *((1 - one) / one for one in thresholds)], dtype=np.float32)
    odds = probabilities * factors[:, None, None]
    shares = []
    for index in range(1, len(odds)):
        rival = np.delete(odds, index, axis=0).max(axis=0)
        shares.append(probabilities[index] / np.maximum(probabilities[index] + rival, 1e-9))
    return shares


def _show_class(
    region: Region, threshold: float, nearness: np.ndarray, is_decided: np.ndarray
) -> ShownClass:
    """Percent that agree with the decision at the threshold, whatever cleaning did after it."""
    level = min(99, max(1, round(100 * threshold)))
    percent = (100 * nearness).clip(0, 100).astype(np.uint8)
    agreed = np.where(is_decided, percent.clip(min=level), percent.clip(max=level - 1))
    return ShownClass(region=region, threshold=level, percent=agreed.astype(np.uint8))


def _as_webp(plane: np.ndarray, **options: object) -> str:
    content = io.BytesIO()
    Image.fromarray(plane).save(content, format="WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def _from_webp(uri: str) -> np.ndarray:
    """(h, w, 3) uint8."""
    content = base64.b64decode(uri.removeprefix("data:image/webp;base64,"), validate=True)
    with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
        return np.asarray(image.convert("RGB"))


MAX_PICTURES = 100
"""Spread over the Dice. A picture takes up to 1.3 MB until it is stored."""

MAX_DOUBTED = 24
"""Of those masks that are most likely to be wrong."""


@dataclass
class ImageSelection:
    """Keeps pictures of cases whose Dice spreads over all that was seen, the extremes always, and
    of those whose masks are doubted most."""

    most: int = MAX_PICTURES
    _shown: list[tuple[float, int, CasePicture]] = field(default_factory=list)
    """By Dice, then in the order of their arrival."""

    _doubted: list[tuple[float, int, CasePicture]] = field(default_factory=list)
    """The same by doubt."""

    _arrived: int = 0

    def add(self, scores: Sequence[CaseScore], picture: CasePicture) -> None:
        """Makes room, where it is full, by what resembles its neighbors most.

        Args:
            scores: Of the case, one for each class. Where nothing was there and nothing was found,
                the picture is not kept.
        """
        dice, doubt = mean_dice(scores), doubt_about(scores)
        self._arrived += 1
        if dice is not None:
            self._insert(self._shown, dice, picture)
            if len(self._shown) > self.most:
                del self._shown[self._most_redundant()]
        if doubt > 0:
            self._insert(self._doubted, doubt, picture)
            del self._doubted[:-MAX_DOUBTED]

    @property
    def pictures(self) -> list[CasePicture]:
        """From the worst to the best, then further ones of doubted masks."""
        found = {picture.case: picture for _, _, picture in (*self._shown, *self._doubted)}
        return list(found.values())

    def _insert(
        self, row: list[tuple[float, int, CasePicture]], value: float, picture: CasePicture
    ) -> None:
        bisect.insort(row, (value, self._arrived, picture), key=lambda one: one[:2])

    def _most_redundant(self) -> int:
        """The place between the two neighbors that are closest to each other."""
        dice = [value for value, _, _ in self._shown]
        gaps = [after - before for before, after in itertools.pairwise(dice)]
        wide = [left + right for left, right in itertools.pairwise(gaps)]
        return 1 + wide.index(min(wide))


def doubt_about(scores: Sequence[CaseScore]) -> float:
    """How likely a case's mask is wrong: the most doubted of its classes."""
    return max((score.measures.get("mask_doubt") or 0.0 for score in scores), default=0.0)
