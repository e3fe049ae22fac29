"""Differences between the names of images and masks."""

import os
import subprocess
import sys

SCRIPT = """
from ushape.data.layouts.differences import rank_differences
names = {name: name for name in ("1", "2", "3")}
print(rank_differences(names, {"seg1_1": "seg1_1", "seg2_2": "seg2_2"}))
"""


def rank_with_hash_seed(seed):
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    return ended.stdout


def test_order_does_not_depend_on_the_hash_seed_of_the_process():
    found = [rank_with_hash_seed(seed) for seed in range(4)]
    assert "seg" in found[0]
    assert len(set(found)) == 1
