"""Limits of a server for predictions."""

from __future__ import annotations

from dataclasses import dataclass

from ushape.errors import check_range

KEPT_S = 600.0
"""Time for which the result of a request that did not wait is kept after it is complete."""

JOB_S = 24 * 3600.0
"""Time after which a prediction that no request waits for is stopped."""

ARRAY_BYTES = 1 << 27
"""Largest request of the KServe protocol, whose arrays are in memory."""

STOP_S = 30.0
"""Time in which running requests may finish when the server is stopped."""

UNPACKED_SHARE = 8
"""Ratio of the limits of pixels: of formats that are read in parts, and of those that are unpacked
as a whole."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the requests that a server accepts.

    Raises:
        ConfigError: if a limit is not positive.
    """

    megabytes: float = 1000.0
    """Largest request, in millions of bytes."""

    megapixels: float = 400.0
    """Largest TIFF, NumPy, Zarr or .nii image, in millions of pixels or voxels. The limit is an
    eighth of this for other formats, which are decompressed as a whole."""

    wait_s: float = 60.0
    """Maximum time that a request waits for its prediction."""

    queue: int = 64
    """Maximum number of images that are being received, waiting or being processed."""

    def __post_init__(self) -> None:
        for name, value, low in (
            ("max_megabytes", self.megabytes, 0.001),
            ("max_megapixels", self.megapixels, 0.001),
            ("max_seconds", self.wait_s, 0.001),
            ("max_queue", self.queue, 1),
        ):
            check_range(name, value, low, hint="Choose a larger limit.")

    @property
    def max_bytes(self) -> int:
        return round(1e6 * self.megabytes)

    @property
    def max_px(self) -> int:
        """Largest number of pixels of an image that is read in parts."""
        return round(1e6 * self.megapixels)

    @property
    def max_unpacked_px(self) -> int:
        """Largest number of pixels of other images."""
        return self.max_px // UNPACKED_SHARE
