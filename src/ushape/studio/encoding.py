"""Values in which annotations are saved: those of the user's masks, and one for missing pixels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ushape.errors import DataError
from ushape.labels import IGNORE, LabelConfig, LabelSpace
from ushape.labels.colors import channels_of, colors_of
from ushape.studio.annotations import NO_OBJECT
from ushape.studio.tiles import class_colors
from ushape.transforms.overlay import Color
from ushape.types import MaskEncoding, Palette

GRAY = 0x808080
"""Color of pixels that are not annotated, in masks of colors."""

NO_OBJECT_IN_FILE = 65_535
"""Value of such pixels in masks of object numbers, unless these are integers of 32 or 64 bits."""

NO_OBJECT_IN_LARGE_FILE = 2**31 - 1
"""Value of such pixels in masks whose numbers have 32 or 64 bits."""


@dataclass(frozen=True, kw_only=True)
class MaskTarget:
    """How annotations are written to mask files."""

    space: LabelSpace
    """Classes and their values."""

    encoding: MaskEncoding
    are_objects: bool = False
    """Whether masks number the objects."""

    is_native: bool = True
    """Whether masks can be written in the user's own format; otherwise corrected masks are
    separate files."""

    @property
    def ignore(self) -> int:
        """Value of pixels that are not annotated in mask files; no class has it."""
        if self.space.ignore is not None:
            is_gray = self._shows_colors and self.space.ignore % 0x010101 == 0
            return self.space.ignore // 0x010101 if is_gray else self.space.ignore
        if self.are_objects:
            dtype = np.dtype(self.encoding.dtype)
            is_large = dtype.kind in "ui" and dtype.itemsize > 2
            return NO_OBJECT_IN_LARGE_FILE if is_large else NO_OBJECT_IN_FILE
        used = {*self.space.values, *(value for value, _ in self.space.further_values)}
        if self.encoding.kind == "colors":
            return next(code for code in range(GRAY, GRAY + 256) if code not in used)
        candidates = (255, 128, 254, *range(253, -1, -1), *range(256, 65_536))
        if self._shows_colors and self.encoding.kind == "values":
            candidates = tuple(v for v in (128, *range(129, 255)) if v * 0x010101 not in used)
        return next(value for value in candidates if value not in used)

    @property
    def _shows_colors(self) -> bool:
        """Whether stored values are compared by the color that they show."""
        return self.space.colors is not None and not self.space.values_are_colors

    def codes_of(
        self, labels: np.ndarray, encoding: MaskEncoding | None = None
    ) -> tuple[np.ndarray, MaskEncoding]:
        """Return the codes of an annotation and the encoding that can hold them.

        Args:
            encoding: Encoding of the whole annotation, if `labels` is a part of it.

        Shapes:
            labels: (*S) class indices or object numbers.
            returns: codes (*S).

        Raises:
            DataError: if an object has the number that stands for missing pixels.
        """
        if self.are_objects:
            if (labels == self.ignore).any():
                raise DataError(
                    f"An object has the number {self.ignore}, which is reserved for pixels that "
                    "are not annotated.",
                    code="object_number_reserved",
                    hint="Store the masks as 32-bit integers, or use smaller numbers.",
                )
            codes = np.where(labels == NO_OBJECT, np.uint32(self.ignore), labels)
        else:
            codes = replace(self.space, ignore=self.ignore).values_of(labels)
        if encoding is None:
            highest = int(codes.max(initial=0))
            encoding = self.encoding_for(highest, is_partial=self._is_partial(labels))
        if self._shows_colors and (self.encoding.dtype, encoding.dtype) == ("bool", "uint8"):
            codes = np.where(codes == 1, 255, codes)  # The white of masks with 1 bit.
        return codes, encoding

    def encoding_for(self, highest: int, *, is_partial: bool) -> MaskEncoding:
        """Return the user's encoding, with a larger type or palette if values need it."""
        encoding = self.encoding
        if encoding.kind == "palette":
            palette = list(encoding.palette or ())
            palette += class_colors(highest + 1)[len(palette) :]
            if is_partial and self.ignore < 256:
                palette += [(0, 0, 0)] * (self.ignore + 1 - len(palette))
                palette[self.ignore] = (128, 128, 128)
            return replace(encoding, palette=tuple(palette))
        if encoding.kind not in ("values", "one_hot"):
            return encoding
        dtype = np.dtype(encoding.dtype)
        if dtype.kind == "b" and highest > 1:
            return replace(encoding, dtype="uint8" if highest < 256 else "uint16")
        if dtype.kind in "ui" and highest > np.iinfo(dtype).max:
            return replace(encoding, dtype=str(np.min_scalar_type(highest)))
        return encoding

    def label_config(self, *, has_partial: bool, left_out: Collection[int] = ()) -> LabelConfig:
        """Return the settings with which training reads the masks.

        Args:
            has_partial: Whether some pixels of the masks are not annotated.
            left_out: Indices of classes that no mask has.
        """
        space = self.space
        is_needed = has_partial or space.ignore is not None
        config = LabelConfig(ignore=self._ignored_setting if is_needed else None)
        if self.are_objects:
            return replace(config, instances=True)
        if space.regions or space.further_values:
            return config
        if space.threshold is not None:
            return replace(config, threshold=space.threshold)
        kept = [index for index in range(len(space.values)) if index not in left_out]
        values = tuple((space.colors or space.values)[index] for index in kept)
        names = tuple(space.names[index] for index in kept)
        return replace(config, values=values, names=names, nearest=space.nearest)

    @property
    def _ignored_setting(self) -> int:
        """Value of `labels.ignore`: a color, if masks are compared by color."""
        if not self._shows_colors:
            return self.ignore
        encoding = self.encoding_for(self.ignore, is_partial=True)
        return int(colors_of(np.array([self.ignore]), encoding)[0])

    def colors(self) -> list[Color]:
        """Return a color to show each class, background first: that of the masks if they have
        one."""
        chosen = class_colors(len(self.space.values))
        if self.encoding.kind in ("colors", "palette"):
            codes = np.asarray(self.space.values, dtype=np.int64)
            if not self.space.values_are_colors:
                codes = colors_of(codes, self.encoding)
            own = [tuple(map(int, channels_of(code))) if code >= 0 else None for code in codes]
            distinct = len(set(own)) == len(own) and None not in own
            if distinct:
                chosen = [(color[0], color[1], color[2]) for color in own if color is not None]
        return chosen

    def with_classes(self, names: Sequence[str]) -> MaskTarget:
        """Return a target with other names; additional names get new values.

        Args:
            names: Name of each class, background first; not fewer than before.
        """
        values, taken = list(self.space.values), {*self.space.values, self.ignore}
        palette: Palette | None = self.encoding.palette
        fresh = class_colors(len(names))
        for index in range(len(values), len(names)):
            if self.encoding.kind == "colors":
                red, green, blue = fresh[index]
                value = red << 16 | green << 8 | blue
            else:
                value = next(v for v in range(index, 65_536) if v not in taken)
            if self.encoding.kind == "palette" and value < 256:
                entries = [*(palette or ()), *[(0, 0, 0)] * 256][
                    : max(value + 1, len(palette or ()))
                ]
                entries[value] = fresh[index]
                palette = tuple(entries)
            values.append(value)
            taken.add(value)
        is_grown = len(values) > len(self.space.values)
        space = replace(
            self.space,
            values=tuple(values),
            names=tuple(names),
            colors=tuple(values) if self.space.values_are_colors else self.space.colors,
            threshold=None if is_grown else self.space.threshold,
            ignore=self.ignore,
        )
        return replace(self, space=space, encoding=replace(self.encoding, palette=palette))

    def _is_partial(self, labels: np.ndarray) -> bool:
        return bool((labels == (NO_OBJECT if self.are_objects else IGNORE)).any())


def new_target() -> MaskTarget:
    """Return the target of data without any mask: palette indices, with one class."""
    space = LabelSpace(values=(0, 1), names=("background", "foreground"), ignore=IGNORE)
    palette = [(0, 0, 0), *class_colors(2)[1:], *[(0, 0, 0)] * 253, (128, 128, 128)]
    return MaskTarget(space=space, encoding=MaskEncoding(kind="palette", palette=tuple(palette)))
