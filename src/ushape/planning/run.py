"""Run: a folder of JSON and safetensors. Nothing in it runs code when it is loaded."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ushape.data.checksum import digest_of
from ushape.data.splits import Splits
from ushape.errors import RunError
from ushape.formatting import command_line, reason
from ushape.io.files import write_bytes
from ushape.models import build_model
from ushape.planning.custom_code import loaded_source, require_code
from ushape.planning.plan import Plan
from ushape.types import Case, CaseFacts, CocoMask, Mask, MaskParts


@dataclass(frozen=True)
class Run:
    """The files of one training, by name."""

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
        """Where the weights of one epoch lie, if the recipe keeps them."""
        return self.folder / "epochs" / f"{epoch:04d}.safetensors"

    @property
    def tuning_path(self) -> Path:
        """Thresholds and such that validation chose after training."""
        return self.folder / "decision.json"

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

    def has_ended(self, plan: Plan) -> bool:
        """Its training came to the end of this plan."""
        end = self._end_path
        return end.exists() and end.read_text() == str(plan.recipe.train.epochs)

    def note_end(self, plan: Plan) -> None:
        write_bytes(self._end_path, str(plan.recipe.train.epochs).encode())

    @property
    def _end_path(self) -> Path:
        return self.checkpoint_path.with_name("ended")

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run that can predict.

        Raises:
            RunError: the folder is none, or its training has not saved weights yet.
        """
        run = cls(folder)
        run._require(run.plan_path)
        run.require_weights()
        return run

    def require_weights(self) -> None:
        """Raises RunError where there are none yet, or none any more."""
        if self.weights_path.exists():
            return
        if self.metrics_path.exists():
            raise RunError(
                f"{self.folder} has no {self.weights_path.name} any more.",
                hint="Copy it from where the run was made, or train again.",
            )
        raise RunError(
            f"{self.folder} has no {self.weights_path.name}: its first epoch was not finished.",
            hint=f"`ushape train --resume {self.folder}` continues it.",
        )

    @classmethod
    def create(cls, folder: Path) -> Run:
        """A new run in an empty or absent folder; what exists is never overwritten.

        Raises:
            RunError: something is there already.
        """
        run = cls(folder)
        if run.plan_path.exists():
            raise RunError(
                f"{folder} holds a run already.",
                hint=f"Choose another folder with -o, or continue it with --resume {folder}.",
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} is in the way.", hint="Choose another folder with -o.")
        folder.mkdir(parents=True, exist_ok=True)
        return run

    @contextmanager
    def left_whole_or_not_at_all(self) -> Iterator[None]:
        """Takes the folder away again where no plan comes about."""
        try:
            yield
        except BaseException:
            if not self.plan_path.exists():
                for path in (self.cases_path, self.splits_path):
                    path.unlink(missing_ok=True)
                if not any(self.folder.iterdir()):
                    self.folder.rmdir()
            raise

    def save_plan(self, plan: Plan) -> None:
        """Write the plan, and a copy of the Python file of its recipe, if it has one."""
        code = plan.recipe.code
        source = loaded_source(code) if code is not None else None
        if code is not None and source is not None:
            write_bytes(self._code_folder / code.file, source)
        write_json(self.plan_path, plan.to_dict())

    def require_code(self, plan: Plan, *, training: bool) -> None:
        """Raise ConfigError if the plan needs a Python file that the user did not name."""
        require_code(plan.recipe, self._code_folder, training=training)

    @property
    def _code_folder(self) -> Path:
        return self.folder / "code"

    def load_plan(self) -> Plan:
        return Plan.from_dict(self._read_json(self.plan_path), source=str(self.plan_path))

    def save_cases(self, data: Path, facts: Sequence[CaseFacts]) -> None:
        """Where the data lie: paths relative to their folder where possible."""
        data = data.parent if data.is_file() else data  # A table or a COCO file.
        rows = [
            {**_case_to_row(fact.case, data), "class_pixels": fact.class_pixels} for fact in facts
        ]
        digest = digest_of([fact.case for fact in facts], data)
        stored = {"folder": str(data.resolve()), "digest": digest, "command": command_line()}
        write_json(self.cases_path, {**stored, "cases": rows})

    def load_cases(self) -> list[CaseFacts]:
        """Raises RunError where the data are no longer where they were at training."""
        stored = self._stored_cases()
        data = Path(stored["folder"])
        facts = [
            CaseFacts(_case_from_row(row, data), tuple(row["class_pixels"]))
            for row in stored["cases"]
        ]
        images = [path for fact in facts for path in (fact.case.image, *fact.case.channels)]
        missing = [path for path in images if not path.exists()]
        if missing:
            raise RunError(
                f"{len(missing)} images of {self.folder} are no longer there, first {missing[0]}.",
                hint="Bring the data back, or name others: ushape evaluate RUN DATA.",
            )
        return facts

    def image_paths(self) -> dict[str, Path]:
        """The image file of each case id, whether it is still there or not."""
        stored = self._stored_cases()
        folder = Path(stored["folder"])
        return {row["id"]: folder / row["image"] for row in stored["cases"]}

    def groups(self) -> dict[str, str]:
        """The group of each case id, whether its files are still there or not."""
        return {row["id"]: row["group"] for row in self._stored_cases()["cases"]}

    @property
    def data_checksum(self) -> str:
        """Checksum of the data as training found them; '' in runs that lack it."""
        return str(self._stored_cases().get("digest", ""))

    @property
    def command(self) -> str:
        """The call that began the training; '' in runs that lack it."""
        return str(self._stored_cases().get("command", ""))

    def _stored_cases(self) -> dict[str, Any]:
        stored = self._read_json(self.cases_path)
        is_ours = isinstance(stored, dict) and {"folder", "cases"} <= stored.keys()
        if not is_ours or not all(
            isinstance(row, dict) and {"id", "group", "image", "mask"} <= row.keys()
            for row in stored["cases"]
        ):
            raise RunError(
                f"{self.cases_path}: not what training wrote.", hint="Copy the run folder again."
            )
        return stored

    def load_splits(self) -> Splits:
        self._require(self.splits_path)
        return Splits.load(self.splits_path)

    def save_weights(
        self, weights: Mapping[str, Tensor], facts: Mapping[str, Any], path: Path | None = None
    ) -> None:
        """Writes the weights whole or not at all; the facts go into the file's header.

        Args:
            path: Another file than the run's own weights.
        """
        plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        # One entry: safetensors writes several in any order, and equal weights make equal files.
        header = {"ushape": json.dumps(facts, sort_keys=True)}
        write_bytes(path or self.weights_path, safetensors.torch.save(plain, header))

    def load_network(self, plan: Plan) -> nn.Module:
        """Return the trained network on the CPU, ready to predict.

        Raises:
            RunError: if the weights are damaged or do not belong to the plan.
            ConfigError: if the network is defined in a Python file that the user did not name.
        """
        self.require_code(plan, training=False)
        network = build_model(
            plan.recipe.network, plan.preprocessing.channels, plan.preprocessing.space.channels
        )
        try:
            network.load_state_dict(safetensors.torch.load_file(self.weights_path))
        except (safetensors.SafetensorError, RuntimeError, OSError) as error:
            first = str(error).strip().splitlines()[0].rstrip(":")
            raise RunError(
                f"{self.weights_path}: not the weights of {self.plan_path.name}: {first}.",
                hint="Copy the run folder again, whole.",
            ) from None
        return network.eval()

    def weight_facts(self) -> dict[str, Any]:
        """What was stored with the weights: epoch and validation Dice."""
        with safetensors.safe_open(self.weights_path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {}).get("ushape", "{}")))

    def load_metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv, one per epoch."""
        if not self.metrics_path.exists():
            return []
        try:
            with self.metrics_path.open(newline="") as file:
                return list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise RunError(
                f"{self.metrics_path}: not readable: {reason(error)}.", hint="Copy the run again."
            ) from None

    def _read_json(self, path: Path) -> Any:
        self._require(path)
        try:
            return json.loads(path.read_text())
        except (ValueError, OSError) as error:
            raise RunError(
                f"{path}: not readable: {reason(error)}.", hint="Copy the run again."
            ) from None

    def _require(self, path: Path) -> None:
        if not path.exists():
            raise RunError(
                f"{self.folder} is no run, or an incomplete one: no {path.name} in it.",
                hint="A run is the folder that `ushape train` printed, e.g. runs/my_images.",
            )


def write_json(path: Path, values: Any) -> None:
    """Writes JSON whole or not at all."""
    write_bytes(path, (json.dumps(values, indent=2, default=str) + "\n").encode())


def _case_to_row(case: Case, data: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": case.id,
        "group": case.group,
        "image": _relative(case.image, data),
        "mask": _mask_to_json(case.mask, data),
    }
    if case.channels:
        row["channels"] = [_relative(path, data) for path in case.channels]
    if case.split:
        row["split"] = case.split
    if case.metadata:
        row["metadata"] = dict(case.metadata)
    return row


def _case_from_row(row: Mapping[str, Any], data: Path) -> Case:
    return Case(
        id=row["id"],
        group=row["group"],
        image=data / row["image"],
        mask=_mask_from_json(row["mask"], data),
        channels=tuple(data / path for path in row.get("channels", ())),
        split=row.get("split", ""),
        metadata=row.get("metadata", {}),
    )


def _mask_to_json(mask: Mask | None, data: Path) -> Any:
    """A path, or an object that tells its kind by its keys."""
    if isinstance(mask, MaskParts):
        parts = [_relative(path, data) for path in mask.paths]
        return {"parts": parts, "values": list(mask.values)}
    if isinstance(mask, CocoMask):
        return {"coco": _relative(mask.path, data), "image_id": mask.image_id}
    return _relative(mask, data) if mask else None


def _mask_from_json(stored: Any, data: Path) -> Mask | None:
    if isinstance(stored, dict) and "parts" in stored:
        paths = tuple(data / path for path in stored["parts"])
        return MaskParts(paths, tuple(stored["values"]))
    if isinstance(stored, dict):
        return CocoMask(data / stored["coco"], stored["image_id"])
    return data / stored if stored else None


def _relative(path: Path, folder: Path) -> str:
    """Relative to the folder where it lies below it, else absolute."""
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return str(path.resolve())
