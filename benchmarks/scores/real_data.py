"""`ushape train` on the three real data sets, ten minutes each, and the scores against the bars.

    python benchmarks/scores/real_data.py DATA_FOLDER [--minutes 10] [--only isbi2012]

DATA_FOLDER holds isbi2012/, lgg/ and carvana/ as their READMEs describe them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import ushape

SETS = {
    "isbi2012": ("isbi2012/train", None),
    "lgg": ("lgg/kaggle_3m", None),
    "carvana": ("carvana/train_512", "carvana/train_masks_512"),
}
BARS = {
    "isbi2012": "Dice of the interiors at least 0.95, pixel error at most 0.08",
    "lgg": "mean Dice per patient (3D) at least 0.70",
    "carvana": "Dice at least 0.975",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--output", type=Path, help="Keep the runs here.")
    options = parser.parse_args()
    output = options.output or Path(tempfile.mkdtemp(prefix="ushape-scores-"))
    lines = []
    for name in [options.only] if options.only else SETS:
        images, masks = SETS[name]
        started = time.monotonic()
        result = ushape.train(
            options.folder / images,
            masks=options.folder / masks if masks else None,
            output=output / name,
            minutes=options.minutes,
        )
        minutes = (time.monotonic() - started) / 60
        lines.append(f"| {name} | {result.summary.verdict} | {BARS[name]} | {minutes:.1f} |")
    print("\n| data | measured | bar | minutes |\n|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
