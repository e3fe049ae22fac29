"""Tables of run lengths next to images, as in Kaggle competitions."""

from __future__ import annotations

from pathlib import Path

from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.listing import files_named
from ushape.data.layouts.shapes import ImageIndex, match_shapes
from ushape.errors import DataError
from ushape.formatting import quoted
from ushape.io.annotations.run_tables import find_run_columns, read_run_table
from ushape.types import ShapesMask


def find_run_lengths(folder: Path) -> LayoutMatch | None:
    """Find a CSV table of run lengths in the folder, and its images anywhere below it.

    A table such as sample_submission.csv is skipped, since it contains predictions.

    Raises:
        DataError: if there are several such tables, or as `pair_run_lengths`.
    """
    tables = [
        path
        for path in files_named(folder, "*.csv")
        if "submission" not in path.stem.lower() and find_run_columns(path)
    ]
    matches = [found for path in tables if (found := pair_run_lengths(path, folder)).paired]
    if len(matches) > 1:
        raise DataError(
            f"{folder}: several tables list run lengths: {', '.join(p.name for p in tables)}.",
            code="ambiguous_tables",
            hint=f"Specify one of them: ushape train {quoted(tables[0])}",
        )
    return matches[0] if matches else None


def pair_run_lengths(path: Path, folder: Path) -> LayoutMatch:
    """Pair the rows of a table of run lengths with the images below a folder.

    Raises:
        DataError: if the table cannot be read, or if a name fits several images.
    """
    columns = find_run_columns(path)
    assert columns is not None, "the first line must contain the names of the columns"
    index = ImageIndex(folder)
    masks: dict[Path, ShapesMask] = {}
    missing: list[str] = []
    for name in read_run_table(path):
        image = index.find(name, near=[folder, folder / path.stem])
        if image is None:
            missing.append(name)
        else:
            masks[image] = ShapesMask(path, "run_lengths", image, entry=name)
    counted = "down the columns" if columns.order == "column" else "along the rows"
    return match_shapes(
        folder,
        f"run lengths in {path.name}, column {columns.names[columns.runs]}, counted {counted}",
        masks,
        source=path,
        missing=missing,
    )
