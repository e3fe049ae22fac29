"""Reduced images of evaluated cases, stored in the run folder for the report."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from ushape.evaluation.picture_files import (
    decode_webp,
    encode_webp,
    read_picture_files,
    write_picture_files,
)
from ushape.evaluation.scores import CaseScore, case_dice, false_positive_px
from ushape.evaluation.volume_views import VolumeViews, make_views
from ushape.formatting import size_text
from ushape.inference.decision_rule import DecisionRule
from ushape.labels import IGNORE, LabelSpace, Region
from ushape.transforms.overlay import as_rgb
from ushape.types import Prediction

MAX_SIDE_PX = 512
"""Longest side of a stored picture."""

WEBP_QUALITY = 85
"""WebP quality of the stored image; ground truth and probabilities are stored losslessly."""

MAX_PICTURES = 100
"""Maximum number of pictures selected by Dice; each takes up to 1.3 MB before it is stored."""

MAX_FALSE_POSITIVE_PICTURES = 12
"""Maximum number of pictures of cases without annotation, those with the most predicted pixels."""

MAX_SUSPECT_PICTURES = 24
"""Maximum number of pictures selected by label error score."""


@dataclass(frozen=True, kw_only=True)
class ShownClass:
    """One class or region of a picture."""

    region: Region
    threshold: int
    """Threshold of the decision rule in percent, 1 to 99."""

    percent: np.ndarray
    """(h, w) uint8, 0 to 100: threshold in percent up to which a pixel belongs to the class. Before
    the picture is reduced, exactly the pixels of the predicted class reach `threshold`."""


@dataclass(frozen=True, kw_only=True)
class CasePicture:
    """Picture of a case."""

    case: str
    group: str
    part: str
    """Description of the part shown, e.g. "slice 3 of 20"; '' if the case is shown completely."""

    image: np.ndarray
    """(h, w, 3) uint8."""

    truth: np.ndarray
    """(h, w) uint8 class indices, IGNORE for unannotated pixels."""

    classes: tuple[ShownClass, ...]

    views: VolumeViews | None = None
    """Further views of a volume; None for an image."""

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
    max_side_px: int = MAX_SIDE_PX,
) -> CasePicture:
    """Make the picture of a case; for a volume, of the slice with the most foreground.

    Args:
        prediction: Probabilities (K, *S) and class indices (*S).
        rule: Decision rule that produced the predicted classes; None: the most probable class.
        max_side_px: Longest side of the picture; larger images are reduced.

    Shapes:
        image: (C, *S), any dtype; truth: (*S) class indices.
    """
    probabilities, decided, part = prediction.probabilities, prediction.classes, ""
    views = None
    if truth.ndim == 3:
        spacing = prediction.source.spacing_mm if prediction.source is not None else None
        views = make_views(image, truth, decided, spacing)
        plane = _fullest_plane(truth, decided)
        part = f"slice {plane + 1} of {len(truth)}"
        image, probabilities = image[:, plane], probabilities[:, plane]
        truth, decided = truth[plane], decided[plane]
    thresholds = [own.threshold for own in (rule or DecisionRule()).for_space(space)]
    membership = _membership(probabilities, space, thresholds)
    picture = CasePicture(
        case=case_id,
        group=group,
        part=part,
        image=as_rgb(image),
        truth=truth.astype(np.uint8),
        classes=tuple(
            _show_class(region, threshold, share, region.of(decided))
            for region, threshold, share in zip(space.scored, thresholds, membership, strict=True)
        ),
        views=views,
    )
    reduced = reduce_picture(picture, max_side_px)
    if reduced is picture:
        return picture
    text = f"{size_text(picture.size)} px reduced to {size_text(reduced.size)}"
    return replace(reduced, part=f"{part}, {text}" if part else text)


def reduce_picture(picture: CasePicture, max_side_px: int) -> CasePicture:
    """Reduce a picture: image and probabilities by averaging, truth by nearest neighbor.

    Args:
        max_side_px: Longest side in pixels; smaller pictures are returned as they are.
    """
    height, width = picture.size
    scale = max_side_px / max(height, width)
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
    """Write one file for each picture, replacing those of an earlier call."""
    encoded = (encode_picture(picture, WEBP_QUALITY) for picture in pictures)
    write_picture_files(folder, encoded)


def load_pictures(folder: Path) -> list[CasePicture]:
    """Load the pictures of `save_pictures` in their order; none if the folder does not exist.

    Raises:
        RunError: if a file is damaged or not a picture.
    """
    return read_picture_files(folder, _decode_picture)


def encode_picture(picture: CasePicture, quality: int) -> dict[str, Any]:
    """Return the picture as a JSON object in which images are data URIs.

    Args:
        quality: WebP quality of the image, 1 to 100.
    """
    return {
        "case": picture.case,
        "group": picture.group,
        "part": picture.part,
        "image": encode_webp(picture.image, quality=quality),
        "truth": encode_webp(picture.truth, lossless=True),
        "classes": [
            {
                "name": own.region.name,
                "members": list(own.region.classes),
                "threshold": own.threshold,
                "percent": encode_webp(own.percent, lossless=True),
            }
            for own in picture.classes
        ],
        **({"views": picture.views.as_json()} if picture.views is not None else {}),
    }


def _decode_picture(stored: Mapping[str, Any]) -> CasePicture:
    """Decode the result of `encode_picture`.

    Raises:
        OSError, ValueError, TypeError, KeyError, AttributeError: if the content is invalid.
    """
    picture = CasePicture(
        case=str(stored["case"]),
        group=str(stored["group"]),
        part=str(stored["part"]),
        image=decode_webp(stored["image"]),
        truth=decode_webp(stored["truth"])[..., 0],
        classes=tuple(_decode_class(own) for own in stored["classes"]),
        views=VolumeViews.from_json(stored["views"]) if "views" in stored else None,
    )
    shapes = {picture.image.shape[:2], picture.size, *(c.percent.shape for c in picture.classes)}
    if len(shapes) > 1:
        raise ValueError("its images have different sizes")
    members = [index for own in picture.classes for index in own.region.classes or (-1,)]
    if any(not 0 <= index < IGNORE for index in members):
        raise ValueError("it has invalid class indices")
    return picture


def _decode_class(stored: Mapping[str, Any]) -> ShownClass:
    return ShownClass(
        region=Region(name=str(stored["name"]), classes=tuple(map(int, stored["members"]))),
        threshold=int(stored["threshold"]),
        percent=decode_webp(stored["percent"])[..., 0],
    )


def _fullest_plane(truth: np.ndarray, decided: np.ndarray) -> int:
    """Return the slice with the most foreground in the truth, or else in the prediction."""
    annotated = ((truth > 0) & (truth != IGNORE)).sum(axis=(1, 2))
    found = annotated if annotated.any() else (decided > 0).sum(axis=(1, 2))
    return int(found.argmax())


def _membership(
    probabilities: np.ndarray, space: LabelSpace, thresholds: list[float]
) -> list[np.ndarray]:
    """Return for each class or region the threshold up to which a pixel belongs to it, 0 to 1.

    For regions this is the probability. For mutually exclusive classes it is the probability
    relative to the strongest other class, whose threshold stays fixed (see `decision_rule`).
    """
    if not space.is_exclusive:
        return list(probabilities)
    factors = np.array([1.0, *((1 - one) / one for one in thresholds)], dtype=np.float32)
    odds = probabilities * factors[:, None, None]
    shares = []
    for index in range(1, len(odds)):
        strongest = np.delete(odds, index, axis=0).max(axis=0)
        shares.append(probabilities[index] / np.maximum(probabilities[index] + strongest, 1e-9))
    return shares


def _show_class(
    region: Region, threshold: float, membership: np.ndarray, is_decided: np.ndarray
) -> ShownClass:
    """Convert to percent such that the threshold gives the predicted mask, cleaning included."""
    level = min(99, max(1, round(100 * threshold)))
    percent = (100 * membership).clip(0, 100).astype(np.uint8)
    agreed = np.where(is_decided, percent.clip(min=level), percent.clip(max=level - 1))
    return ShownClass(region=region, threshold=level, percent=agreed.astype(np.uint8))


@dataclass
class ImageSelection:
    """Selects pictures whose Dice values cover the whole range, false positives, and label errors.

    The cases with the lowest and the highest Dice are always kept.
    """

    max_pictures: int = MAX_PICTURES
    """Maximum number of pictures selected by Dice."""

    _by_dice: list[tuple[float, int, CasePicture]] = field(default_factory=list)
    _by_false_positive: list[tuple[float, int, CasePicture]] = field(default_factory=list)
    _by_label_error: list[tuple[float, int, CasePicture]] = field(default_factory=list)
    _added: int = 0

    def add(self, scores: Sequence[CaseScore], picture: CasePicture) -> None:
        """Add the picture of a case and, if there are too many, drop the most redundant one.

        Args:
            scores: Scores of the case, one for each class. Cases in which nothing is annotated and
                nothing is predicted are not kept.
        """
        dice, error_score = case_dice(scores), label_error_score(scores)
        self._added += 1
        if dice is not None:
            self._insert(self._by_dice, dice, picture)
            if len(self._by_dice) > self.max_pictures:
                del self._by_dice[self._most_redundant()]
        elif predicted := false_positive_px(scores):
            self._insert(self._by_false_positive, predicted, picture)
            del self._by_false_positive[:-MAX_FALSE_POSITIVE_PICTURES]
        if error_score > 0:
            self._insert(self._by_label_error, error_score, picture)
            del self._by_label_error[:-MAX_SUSPECT_PICTURES]

    @property
    def pictures(self) -> list[CasePicture]:
        """Selected pictures by increasing Dice, then false positives and likely label errors."""
        selected = (*self._by_dice, *self._by_false_positive, *self._by_label_error)
        return list({picture.case: picture for _, _, picture in selected}.values())

    def _insert(
        self, entries: list[tuple[float, int, CasePicture]], value: float, picture: CasePicture
    ) -> None:
        bisect.insort(entries, (value, self._added, picture), key=lambda entry: entry[:2])

    def _most_redundant(self) -> int:
        """Return the index of the picture whose two neighbors have the most similar Dice."""
        dice = [value for value, _, _ in self._by_dice]
        gaps = [after - before for before, after in itertools.pairwise(dice)]
        widths = [left + right for left, right in itertools.pairwise(gaps)]
        return 1 + widths.index(min(widths))


def label_error_score(scores: Sequence[CaseScore]) -> float:
    """Return the highest label error score of a case over its classes; 0 if there is none."""
    return max((score.metrics.get("label_error_score") or 0.0 for score in scores), default=0.0)
