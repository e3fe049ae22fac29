"""Read Kaggle submissions and run lengths, independently of the code that writes them."""

import csv
import gzip

import numpy as np


def read_submission(path):
    """Name and run lengths of each row of a .csv or .csv.gz."""
    opener = gzip.open if path.suffix == ".gz" else open
    limit = csv.field_size_limit(2**31 - 1)  # The row of a noisy mask is longer.
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
    finally:
        csv.field_size_limit(limit)
    assert header == ["img", "rle_mask"]
    return [tuple(row) for row in rows]


def decode_runs(text, shape, order="row"):
    """Mask (y, x), bool, of one-based "start length start length ..."."""
    flat = np.zeros(shape[0] * shape[1], dtype=bool)
    numbers = list(map(int, text.split()))
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        assert length > 0
        assert start + length - 1 <= flat.size
        assert not flat[start - 1 : start - 1 + length].any()
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(shape, order="C" if order == "row" else "F")
