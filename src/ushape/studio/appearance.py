"""Appearance of the images of a project, measured in the background."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from ushape import io
from ushape.data.reading import read_image
from ushape.errors import UshapeError
from ushape.studio.listing import StudioImage
from ushape.studio.suggestions import ImageSummary, summarize

MAX_PX = 1 << 24
"""Number of pixels of an image from which its appearance is not measured."""


class Appearance:
    """Summaries of images without predictions, which become complete after a while."""

    def __init__(self) -> None:
        self._found: dict[str, ImageSummary] = {}
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, images: Sequence[StudioImage]) -> None:
        """Measure images in another thread."""
        self._thread = threading.Thread(
            target=self._measure, args=(images,), name="ushape-studio-appearance", daemon=True
        )
        self._thread.start()

    @property
    def summaries(self) -> dict[str, ImageSummary]:
        """Summaries by image id; none while some are missing, as their order would change."""
        is_done = self._thread is not None and not self._thread.is_alive()
        return self._found if is_done else {}

    def wait(self, timeout_s: float) -> None:
        """Wait until all images are measured."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def close(self) -> None:
        """Stop measuring."""
        self._is_closed.set()
        self.wait(10)

    def _measure(self, images: Sequence[StudioImage]) -> None:
        for image in images:
            if self._is_closed.is_set():
                return
            try:
                size = io.read_size(image.case.image)
                if size is not None and math.prod(size) <= MAX_PX:
                    self._found[image.id] = summarize(image.id, read_image(image.case))
            except (UshapeError, OSError):
                continue  # The page explains it when the image is opened.
