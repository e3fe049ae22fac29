"""Map the mask values of the user's files to the channels of the network, and back."""

from ushape.labels.config import LabelConfig
from ushape.labels.space import IGNORE, LabelSpace, Region
from ushape.labels.values import (
    MAX_CLASSES,
    find_label_space,
    state_all_classes,
    value_histogram,
)

__all__ = [
    "IGNORE",
    "MAX_CLASSES",
    "LabelConfig",
    "LabelSpace",
    "Region",
    "find_label_space",
    "state_all_classes",
    "value_histogram",
]
