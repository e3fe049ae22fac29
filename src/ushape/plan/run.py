"""Run: a folder of JSON and safetensors. Nothing in it runs code when it is loaded."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ushape.data.splits import Splits
from ushape.errors import RunError
from ushape.io.atomic import write_bytes
from ushape.models import build_model
from ushape.plan.plan import Plan
from ushape.types import Case, CocoMask, Mask, MaskParts


@dataclass(frozen=True)
class CaseFacts:
    """A case of the training folder, and how many pixels each class has in it."""

    case: Case
    class_pixels: tuple[int, ...]


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

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run that can predict.

        Raises:
            RunError: the folder is none, or its training has not saved weights yet.
        """
        run = cls(folder)
        run._require(run.plan_path)
        if not run.weights_path.exists():
            raise RunError(
                f"{folder} has no {run.weights_path.name}: its first epoch was not finished.",
                hint=f"`ushape train --resume {folder}` continues it.",
            )
        return run

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

    def save_plan(self, plan: Plan) -> None:
        write_json(self.plan_path, plan.to_dict())

    def load_plan(self) -> Plan:
        return Plan.from_dict(self._read_json(self.plan_path), source=str(self.plan_path))

    def save_cases(self, data: Path, facts: Sequence[CaseFacts]) -> None:
        """Where the data lie: paths relative to their folder where possible."""
        data = data.parent if data.is_file() else data  # A table or a COCO file.
        rows = [
            {**_case_to_row(fact.case, data), "class_pixels": fact.class_pixels} for fact in facts
        ]
        write_json(self.cases_path, {"folder": str(data.resolve()), "cases": rows})

    def load_cases(self) -> list[CaseFacts]:
        """Raises RunError where the data are no longer where they were at training."""
        stored = self._read_json(self.cases_path)
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
        """The trained network, ready to predict, on the CPU."""
        network = build_model(
            plan.recipe.network, plan.preparation.channels, plan.preparation.space.channels
        )
        try:
            network.load_state_dict(safetensors.torch.load_file(self.weights_path))
        except (safetensors.SafetensorError, RuntimeError, OSError) as error:
            raise RunError(
                f"{self.weights_path}: not the weights of {self.plan_path.name}: {error}",
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
        with self.metrics_path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _read_json(self, path: Path) -> Any:
        self._require(path)
        try:
            return json.loads(path.read_text())
        except (ValueError, OSError) as error:
            raise RunError(f"{path}: not readable: {error}.", hint="Copy the run again.") from None

    def _require(self, path: Path) -> None:
        if not path.exists():
            raise RunError(
                f"{self.folder} is not a run: no {path.name} in it.",
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
