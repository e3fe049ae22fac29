"""Distance of pixels to the border of their object, which a network learns to separate objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def border_distance(objects: np.ndarray, reach_px: float) -> np.ndarray:
    """Return the distance of each pixel to the border of its object, relative to the largest one.

    Distances grow up to `reach_px`, so that the inside of large objects has the value 1 whatever
    their shape; smaller objects are divided by their own largest distance. The edge of the array is
    no border, because objects may continue beyond it.

    Args:
        objects: Number of the object of each pixel, 0 outside.
        reach_px: Distance in pixels from which the value is 1.

    Shapes:
        objects: (*S) integers -> (*S) float32, 0 outside of objects, up to 1.

    Source:
        Distances per object as in StarDist (Schmidt et al. 2018, arXiv 1806.03535) and Naylor et
        al. 2019, 10.1109/TMI.2018.2865709, who do not limit them.
    """
    found = np.zeros(objects.shape, dtype=np.float32)
    boxes: Sequence[tuple[slice, ...] | None] = ndimage.find_objects(objects)
    for number, box in enumerate(boxes, start=1):
        if box is None:  # The number does not occur.
            continue
        window = tuple(slice(max(0, edge.start - 1), edge.stop + 1) for edge in box)
        inside = objects[window] == number
        if inside.all():  # There is no border to measure from.
            found[window] = 1
            continue
        distance = ndimage.distance_transform_edt(inside)
        share = distance / min(reach_px, distance.max())
        found[window][inside] = np.minimum(share, 1)[inside]
    return found
