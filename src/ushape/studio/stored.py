"""What a project stores besides its annotations: decisions of the user, and written masks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from ushape.errors import DataError
from ushape.io.files import read_json, write_json

Save = Literal["replace", "separate"]


@dataclass
class Settings:
    """Decisions of the user, and what must be remembered about images."""

    save: Save | None = None
    """What happens to masks that the user had before; None: not decided."""

    threshold: float | None = None
    """Probability from which pixels are foreground; None: as the validation images chose."""

    meaning: dict[str, Any] | None = None
    """Meaning of the mask values, which is kept as soon as masks are written."""

    names: list[str] | None = None
    """Names of the classes if they were changed, background first."""

    removed_classes: list[int] = field(default_factory=list)
    """Indices of classes that were removed; stored edits and predictions still count them."""

    colors: dict[int, str] = field(default_factory=dict)
    """Colors of classes that were chosen on the page, by index, as #rrggbb."""

    folders: list[str] = field(default_factory=list)
    """Folders of the images. New masks must not exclude those in which there are none yet."""

    test: list[str] = field(default_factory=list)
    """Images that the split of the first run with test images keeps for the score."""

    apart: list[str] = field(default_factory=list)
    """Images that the user keeps for the score."""

    seen: list[str] = field(default_factory=list)
    """Images that were shown with a prediction."""

    folder: str = ""
    """Folder of the data when this was written."""

    former_folders: list[str] = field(default_factory=list)
    """Folders in which the data were before, since runs contain absolute paths."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the settings of a project; the defaults if there are none.

        Raises:
            DataError: if the file is damaged.
        """
        values = _load_values(path)
        found = cls(**{key: value for key, value in values.items() if key in vars(cls())})
        found.colors = {int(index): color for index, color in found.colors.items()}
        return found

    def store(self, path: Path) -> None:
        """Write the settings."""
        write_json(path, asdict(self))


@dataclass(frozen=True)
class SavedMask:
    """The mask file that was last written for an image."""

    path: str
    """Path below the data folder, or the whole path of a file elsewhere."""

    revision: int
    size: int
    changed_ns: int
    is_partial: bool = False
    """Whether some of its pixels are not annotated."""

    def is_unchanged(self, file: Path) -> bool:
        """Return whether no other program has changed the file."""
        facts = file.stat()
        return (facts.st_size, facts.st_mtime_ns) == (self.size, self.changed_ns)


def load_saved(path: Path) -> dict[str, SavedMask]:
    """Load the written masks by image id.

    Raises:
        DataError: if the file is damaged.
    """
    return {name: SavedMask(**values) for name, values in _load_values(path).items()}


def store_saved(path: Path, saved: dict[str, SavedMask]) -> None:
    """Write the list of written masks."""
    write_json(path, {name: asdict(own) for name, own in saved.items()})


def _load_values(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of the state; {} if it is missing."""
    if not path.exists():
        return {}
    hint = "Restore it, or move it away; the annotations are in other files."
    values = read_json(path, DataError, code="damaged_studio_state", hint=hint)
    if not isinstance(values, dict):
        raise DataError(
            f"{path} cannot be read: it is not an object.", code="damaged_studio_state", hint=hint
        )
    return values
