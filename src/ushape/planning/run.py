"""Run: the folder of a trained model, in JSON and safetensors. Loading a run executes no code."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ushape.data.checksum import earlier_checksums, file_checksums, has_checksum
from ushape.data.discovery import discover
from ushape.data.splits import Splits
from ushape.errors import ConfigError, RunError
from ushape.formatting import command_line, display_name, file_name, pluralize, quoted, reason
from ushape.io.files import (
    ADDED_TO_ZARR,
    read_sealed_json,
    real_path,
    write_bytes,
    write_sealed_json,
)
from ushape.io.lock import is_unused
from ushape.models import build_model, build_without_data
from ushape.planning.case_file import (
    StoredCases,
    case_from_row,
    case_to_row,
    describe_changes,
    name_files,
    parse_cases,
    relative_path,
)
from ushape.planning.custom_code import loaded_source, require_code
from ushape.planning.plan import Plan
from ushape.planning.weights import load_weights, read_facts, save_weights
from ushape.types import Box, CaseFacts

EDITABLE = ("folder", "data", "masks", "command")
"""Keys of cases.json that may be edited, because data can be moved."""


@dataclass(frozen=True)
class Run:
    """Files of a training run."""

    folder: Path

    @property
    def plan_path(self) -> Path:
        return self.folder / "plan.json"

    @property
    def splits_path(self) -> Path:
        return self.folder / "splits.json"

    @property
    def cases_path(self) -> Path:
        return self.folder / "cases.json"

    @property
    def weights_path(self) -> Path:
        return self.folder / "model.safetensors"

    def epoch_weights_path(self, epoch: int) -> Path:
        """Return the path of the weights of an epoch, which exist if the recipe keeps them."""
        return self.folder / "epochs" / f"{epoch:04d}.safetensors"

    @property
    def tuning_path(self) -> Path:
        """Thresholds and postprocessing that were chosen on the validation cases."""
        return self.folder / "decision.json"

    @property
    def baselines_path(self) -> Path:
        """Trivial baselines that were chosen on the training cases."""
        return self.folder / "baselines.json"

    @property
    def start_decision_path(self) -> Path:
        """Outcome of the trials of a run that starts from other weights."""
        return self.folder / "start" / "decision.json"

    @property
    def seen_images_path(self) -> Path:
        """Images that the initial weights have seen."""
        return self.folder / "seen_images.json"

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def scores_path(self) -> Path:
        return self.folder / "scores.csv"

    @property
    def report_path(self) -> Path:
        return self.folder / "report.html"

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def resume_command(self) -> str:
        """Command that continues the training, as it is typed in a shell."""
        return f"ushape resume {quoted(self.folder)}"

    @property
    def continuation(self) -> str:
        """How to continue the training after an error, for `UshapeError`."""
        return f"The last complete epoch is kept. To continue: {self.resume_command}"

    def has_ended(self, plan: Plan) -> bool:
        """Return whether the training of this plan is complete."""
        end = self._end_path
        return end.exists() and end.read_text() == str(plan.recipe.train.epochs)

    def describe_unfinished(self) -> str | None:
        """Return a message that training has not ended and what is missing; None if it has ended.

        Training that was stopped by the user writes its report, and is considered complete.
        """
        if self.report_path.exists():
            return None
        return (
            f"The training of {self.folder} has not ended: its thresholds are not tuned, and it "
            f"has no scores. `{self.resume_command}` continues it."
        )

    def note_end(self, plan: Plan) -> None:
        """Record that the training of this plan is complete."""
        write_bytes(self._end_path, str(plan.recipe.train.epochs).encode())

    @property
    def _end_path(self) -> Path:
        return self.checkpoint_path.with_name("ended")

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run that can predict.

        Raises:
            RunError: if the folder is not a run, or has no weights yet.
        """
        run = cls(folder)
        run._require(run.plan_path)
        run.require_weights()
        return run

    def require_weights(self) -> None:
        """Raise RunError if the run has no weights."""
        if self.weights_path.is_file():
            return
        if self.metrics_path.exists() and (
            self._end_path.exists() or not self.checkpoint_path.exists()
        ):
            raise RunError(
                f"{self.folder} no longer has a file {self.weights_path.name}.",
                code="weights_missing",
                hint="Copy it from the original run, or train again.",
            )
        raise RunError(
            f"{self.folder} has no {self.weights_path.name}: its training was interrupted.",
            code="weights_missing",
            continuation=f"`{self.resume_command}` continues the training.",
        )

    @classmethod
    def create(cls, folder: Path) -> Run:
        """Create a run in a new or empty folder; nothing is overwritten.

        Raises:
            RunError: if the folder contains a run or other files.
        """
        run = cls(folder)
        if run.plan_path.exists():
            raise RunError(
                f"{folder} already contains a run.",
                code="output_exists",
                hint=f"Choose another folder with -o, or continue it: {run.resume_command}",
            )
        if not is_unused(folder):
            raise RunError(
                f"{folder} already exists and is not empty.",
                code="output_exists",
                hint="Choose another folder with -o.",
            )
        folder.mkdir(parents=True, exist_ok=True)
        return run

    @contextmanager
    def removed_on_failure(self) -> Iterator[None]:
        """Remove the folder if planning fails."""
        try:
            yield
        except BaseException:
            if not self.plan_path.exists():
                for path in (self.cases_path, self.splits_path, self.seen_images_path):
                    path.unlink(missing_ok=True)
                if self.folder.is_dir() and not any(self.folder.iterdir()):
                    self.folder.rmdir()
            raise

    def save_plan(self, plan: Plan) -> None:
        """Write the plan, and a copy of the Python file of its recipe, if it has one."""
        code = plan.recipe.code
        source = loaded_source(code) if code is not None else None
        if code is not None and source is not None:
            write_bytes(self._code_folder / code.file, source)
        write_sealed_json(self.plan_path, plan.to_dict())

    def require_code(self, plan: Plan, *, training: bool) -> None:
        """Raise ConfigError if the plan needs a Python file that the user did not specify."""
        require_code(plan.recipe, self._code_folder, training=training)

    def named_code(self, plan: Plan) -> str | None:
        """Return FILE.py:FUNCTION for the run's copy of the file that the user specified, if
        any."""
        code = plan.recipe.code
        if code is None or loaded_source(code) is None:
            return None
        return f"{self._code_folder / code.file}:{code.function}"

    @property
    def _code_folder(self) -> Path:
        return self.folder / "code"

    def load_plan(self) -> Plan:
        """Load the plan.

        Raises:
            RunError: if it is damaged, was changed, or was written by another version.
        """
        values = self._read_json(self.plan_path)
        try:
            return Plan.from_dict(values, source=str(self.plan_path))
        except ConfigError as error:
            message = error.message.removeprefix(f"{self.plan_path}: ")
            raise RunError(
                f"{self.plan_path} is not a plan that ushape wrote: {message}",
                code="invalid_plan",
                hint="Copy the complete run folder again.",
            ) from None

    def save_cases(
        self,
        data: Path,
        facts: Sequence[CaseFacts],
        checksum: str,
        *,
        masks: Path | None = None,
        files: Mapping[Path, bytes] | None = None,
    ) -> None:
        """Save the location of the data, with paths relative to their folder where possible.

        Args:
            data: Folder, table or COCO file that the user specified.
            masks: Folder of the masks that the user specified.
            files: Checksum of each file.
        """
        folder = data.parent if data.is_file() else data
        values = {
            "folder": display_name(str(real_path(folder))),
            "data": relative_path(data, folder),
            "masks": relative_path(masks, folder) if masks else None,
            "digest": checksum,
            "command": command_line(),
            "files": name_files(files or {}, folder),
            "cases": [case_to_row(fact, folder) for fact in facts],
        }
        write_sealed_json(self.cases_path, values, free=EDITABLE)
        self.__dict__.pop("_stored_cases", None)

    def load_cases(self) -> list[CaseFacts]:
        """Return the cases of the training.

        Raises:
            RunError: if images are no longer where they were during training.
        """
        stored = self._stored_cases
        facts = [case_from_row(row, Path(file_name(stored.folder))) for row in stored.cases]
        images = [path for fact in facts for path in (fact.case.image, *fact.case.channels)]
        missing = [path for path in images if not _exists(path)]
        if missing:
            raise RunError(
                f"{len(missing)} images of {self.folder} no longer exist; the first one is "
                f"{missing[0]}.",
                code="data_missing",
                hint="Restore the data, or evaluate other data: ushape evaluate RUN DATA.",
            )
        return facts

    def refuse_changed_data(self) -> None:
        """Check that the files of the data are those that the run was planned with.

        Raises:
            RunError: if a file was modified, removed or added.
            DataError: if no pair of image and mask is left.
        """
        stored = self._stored_cases
        folder = Path(file_name(stored.folder))
        before = stored.files
        if before:
            found = discover(*self.data_and_masks())
            after = name_files(file_checksums(found.cases, {}), folder)
            before = {
                name: own
                for name, own in before.items()
                if name in after or not ADDED_TO_ZARR.search(name)
            }
            if before != after:  # An earlier version may have computed them.
                earlier = name_files(earlier_checksums(found.cases), folder)
                after |= {name: own for name, own in earlier.items() if before.get(name) == own}
            changes = describe_changes(before, after)
        elif self.data_checksum:  # An older run, which does not tell which files changed.
            cases = [case_from_row(row, folder).case for row in stored.cases]
            is_same = has_checksum(cases, folder, self.data_checksum)
            changes = [] if is_same else ["files were modified, removed or added"]
        else:
            changes = []
        if changes:
            raise RunError(
                f"The data in {folder} have changed since {self.folder} was planned: "
                f"{'; '.join(changes)}.",
                code="data_changed",
                hint="Restore the files to continue this training, or start a new one: ushape "
                "train DATA -o FOLDER.",
            )

    def data_and_masks(self) -> tuple[Path, Path | None]:
        """Return the paths of the data and, if the user specified them, of the masks.

        The files do not have to exist any more.
        """
        stored = self._stored_cases
        folder, masks = Path(file_name(stored.folder)), stored.masks
        return folder / file_name(stored.data), folder / file_name(masks) if masks else None

    def image_paths(self) -> dict[str, Path]:
        """Return the image file of each case, by id, whether it still exists or not."""
        stored = self._stored_cases
        folder = Path(file_name(stored.folder))
        return {row.id: folder / row.image for row in stored.cases}

    def image_checksums(self) -> dict[str, tuple[str, int | None, Box | None]]:
        """Return checksum, page and part of the image of each case; older runs have none."""
        stored = self._stored_cases
        return {
            row.id: (stored.files[row.image], row.page, row.box)
            for row in stored.cases
            if row.image in stored.files
        }

    def image_parts(self) -> dict[str, tuple[int | None, Box | None]]:
        """Return the page and the region of the image file of each case, by id."""
        return {row.id: (row.page, row.box) for row in self._stored_cases.cases}

    def groups(self) -> dict[str, str]:
        """Return the group of each case, by id, whether its files still exist or not."""
        return {row.id: row.group for row in self._stored_cases.cases}

    @property
    def data_checksum(self) -> str:
        """Checksum of the data at the time of training; '' in older runs."""
        return self._stored_cases.digest

    @property
    def command(self) -> str:
        """Command that started the training; '' in older runs."""
        return self._stored_cases.command

    @cached_property
    def _stored_cases(self) -> StoredCases:
        values = self._read_json(self.cases_path, free=EDITABLE)
        return parse_cases(values, self.cases_path)

    def load_splits(self) -> Splits:
        """Load the split.

        Raises:
            RunError: if the file is damaged, or names cases that the run does not have.
        """
        self._require(self.splits_path)
        splits = Splits.load(self.splits_path)
        known = {row.id for row in self._stored_cases.cases}
        parts = (splits.train, splits.validation, splits.test, splits.unused)
        named = [case_id for part in parts for case_id in part]
        unknown = [case_id for case_id in named if case_id not in known]
        if unknown or len(set(named)) < len(named):
            problem = f"the case {unknown[0]} is unknown" if unknown else "a case is named twice"
            raise RunError(
                f"{self.splits_path} does not fit {self.cases_path.name}: {problem}.",
                code="damaged_run",
                hint="Copy the complete run folder again.",
            )
        return splits

    def save_weights(
        self, weights: Mapping[str, Tensor], facts: Mapping[str, Any], path: Path | None = None
    ) -> None:
        """Write the weights completely or not at all, with the facts in the header of the file.

        Args:
            path: File to write; by default that of the run's weights.
        """
        save_weights(path or self.weights_path, weights, facts)

    def load_network(self, plan: Plan) -> nn.Module:
        """Return the trained network on the CPU, ready to predict.

        Raises:
            RunError: if the weights are damaged, not finite, or do not belong to the plan.
            ConfigError: if the network is defined in a Python file that the user did not specify.
        """
        self.require_code(plan, training=False)
        channels = plan.preprocessing.input_channels, plan.preprocessing.space.outputs
        without_data = build_without_data(plan.recipe.network, *channels)
        weights = load_weights(self.weights_path, without_data)
        network = build_model(plan.recipe.network, *channels)
        network.load_state_dict(weights)
        return network.eval()

    def weight_facts(self) -> dict[str, Any]:
        """Return what is stored with the weights: epoch and validation Dice."""
        return read_facts(self.weights_path)

    def load_metrics(self) -> list[dict[str, str]]:
        """Return the rows of metrics.csv, one per epoch."""
        if not self.metrics_path.exists():
            return []
        try:
            with self.metrics_path.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise RunError(
                f"{self.metrics_path} cannot be read: {reason(error)}.",
                code="damaged_run",
                hint="Copy the complete run folder again.",
            ) from None

    @property
    def trained_s(self) -> float:
        """Seconds that the epochs of all attempts have taken so far; 0 if they are not known."""
        try:
            return sum(float(row.get("seconds") or 0.0) for row in self.load_metrics())
        except (RunError, TypeError, ValueError):  # A training writes this table again.
            return 0.0

    def _read_json(self, path: Path, free: Sequence[str] = ()) -> Any:
        self._require(path)
        hint = "Copy the complete run folder again."
        return read_sealed_json(path, RunError, code="damaged_run", hint=hint, free=free)

    def _require(self, path: Path) -> None:
        if not path.exists():
            if path == self.plan_path and (inside := self._runs_inside()):
                raise RunError(
                    f"{self.folder} is not a run itself: it contains "
                    f"{pluralize(len(inside), 'run')}.",
                    code="not_a_single_run",
                    hint=f"Specify one run, for example {inside[0]}.",
                )
            raise RunError(
                f"{self.folder} is not a complete run: it has no {path.name}.",
                code="run_incomplete",
                hint="Specify the folder that `ushape train` printed, e.g. runs/my_images.",
            )

    def _runs_inside(self) -> list[Path]:
        """Return the runs in the folder, such as those of a cross-validation or a search."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if Run(path).plan_path.is_file())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # A loop of links, or a name that the system does not accept.
        return False
