"""Run: the folder of a training, with JSON and safetensors. Loading a run executes no code."""

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

from ushape.data.splits import Splits
from ushape.errors import RunError
from ushape.formatting import command_line, reason
from ushape.io.files import read_json, write_bytes, write_json
from ushape.models import build_model
from ushape.planning.custom_code import loaded_source, require_code
from ushape.planning.plan import Plan
from ushape.types import Case, CaseFacts, CocoMask, Mask, MaskPage, MaskParts, ShapesMask


@dataclass(frozen=True)
class Run:
    """Files of a training."""

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
        """Return whether the training of this plan is complete."""
        end = self._end_path
        return end.exists() and end.read_text() == str(plan.recipe.train.epochs)

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
        if self.weights_path.exists():
            return
        if self.metrics_path.exists():
            raise RunError(
                f"{self.folder} no longer has a file {self.weights_path.name}.",
                code="weights_missing",
                hint="Copy it from the original run, or train again.",
            )
        raise RunError(
            f"{self.folder} has no {self.weights_path.name}: its first epoch was not finished.",
            code="weights_missing",
            hint=f"`ushape resume {self.folder}` continues the training.",
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
                hint=f"Choose another folder with -o, or continue it: ushape resume {folder}",
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
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

    def save_cases(self, data: Path, facts: Sequence[CaseFacts], checksum: str) -> None:
        """Save where the data lie, with paths relative to their folder where possible."""
        data = data.parent if data.is_file() else data  # A table or a COCO file.
        rows = [
            {**_case_to_row(fact.case, data), "class_pixels": fact.class_pixels} for fact in facts
        ]
        stored = {"folder": str(data.resolve()), "digest": checksum, "command": command_line()}
        write_json(self.cases_path, {**stored, "cases": rows})

    def load_cases(self) -> list[CaseFacts]:
        """Return the cases of the training.

        Raises:
            RunError: if images are no longer where they were during training.
        """
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
                f"{len(missing)} images of {self.folder} no longer exist, the first is "
                f"{missing[0]}.",
                code="data_missing",
                hint="Restore the data, or evaluate other data: ushape evaluate RUN DATA.",
            )
        return facts

    def image_paths(self) -> dict[str, Path]:
        """Return the image file of each case, by id, whether it still exists or not."""
        stored = self._stored_cases()
        folder = Path(stored["folder"])
        return {row["id"]: folder / row["image"] for row in stored["cases"]}

    def groups(self) -> dict[str, str]:
        """Return the group of each case, by id, whether its files still exist or not."""
        return {row["id"]: row["group"] for row in self._stored_cases()["cases"]}

    @property
    def data_checksum(self) -> str:
        """Checksum of the data at the time of training; '' in older runs."""
        return str(self._stored_cases().get("digest", ""))

    @property
    def command(self) -> str:
        """Command that started the training; '' in older runs."""
        return str(self._stored_cases().get("command", ""))

    def _stored_cases(self) -> dict[str, Any]:
        stored = self._read_json(self.cases_path)
        is_ours = isinstance(stored, dict) and {"folder", "cases"} <= stored.keys()
        if not is_ours or not all(
            isinstance(row, dict) and {"id", "group", "image", "mask"} <= row.keys()
            for row in stored["cases"]
        ):
            raise RunError(
                f"{self.cases_path} is not a file that training wrote.",
                code="damaged_run",
                hint="Copy the complete run folder again.",
            )
        return stored

    def load_splits(self) -> Splits:
        self._require(self.splits_path)
        return Splits.load(self.splits_path)

    def save_weights(
        self, weights: Mapping[str, Tensor], facts: Mapping[str, Any], path: Path | None = None
    ) -> None:
        """Write the weights completely or not at all, with the facts in the header of the file.

        Args:
            path: File to write; by default that of the run's weights.
        """
        plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        # A single entry, because safetensors writes several in any order: equal weights give equal
        # files.
        header = {"ushape": json.dumps(facts, sort_keys=True)}
        write_bytes(path or self.weights_path, safetensors.torch.save(plain, header))

    def load_network(self, plan: Plan) -> nn.Module:
        """Return the trained network on the CPU, ready to predict.

        Raises:
            RunError: if the weights are damaged, not finite, or do not belong to the plan.
            ConfigError: if the network is defined in a Python file that the user did not name.
        """
        self.require_code(plan, training=False)
        network = build_model(
            plan.recipe.network, plan.preprocessing.channels, plan.preprocessing.space.channels
        )
        try:
            weights = safetensors.torch.load_file(self.weights_path)
            network.load_state_dict(weights)
        except (safetensors.SafetensorError, RuntimeError, OSError) as error:
            first = str(error).strip().splitlines()[0].rstrip(":")
            raise RunError(
                f"{self.weights_path} does not fit {self.plan_path.name}: {first}.",
                code="damaged_weights",
                hint="Copy the complete run folder again.",
            ) from None
        if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
            raise RunError(
                f"{self.weights_path} contains NaN or infinite weights in {broken[0]}: the network "
                "cannot predict.",
                code="weights_not_finite",
                hint="Copy the complete run folder again, or train again.",
            )
        return network.eval()

    def weight_facts(self) -> dict[str, Any]:
        """Return what is stored with the weights: epoch and validation Dice."""
        with safetensors.safe_open(self.weights_path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {}).get("ushape", "{}")))

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

    def _read_json(self, path: Path) -> Any:
        self._require(path)
        hint = "Copy the complete run folder again."
        return read_json(path, RunError, code="damaged_run", hint=hint)

    def _require(self, path: Path) -> None:
        if not path.exists():
            raise RunError(
                f"{self.folder} is not a complete run: it has no {path.name}.",
                code="run_incomplete",
                hint="Name the folder that `ushape train` printed, e.g. runs/my_images.",
            )


def _case_to_row(case: Case, data: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": case.id,
        "group": case.group,
        "image": _relative(case.image, data),
        "mask": _mask_to_json(case.mask, data),
    }
    if case.page is not None:
        row["page"] = case.page
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
        page=row.get("page"),
        split=row.get("split", ""),
        metadata=row.get("metadata", {}),
    )


def _mask_to_json(mask: Mask | None, data: Path) -> Any:
    """Return a path, or an object whose keys tell the type of the mask."""
    if isinstance(mask, MaskParts):
        parts = [_relative(path, data) for path in mask.paths]
        return {"parts": parts, "values": list(mask.values)}
    if isinstance(mask, CocoMask):
        return {"coco": _relative(mask.path, data), "image_id": mask.image_id}
    if isinstance(mask, ShapesMask):
        paths = {"shapes": _relative(mask.path, data), "image": _relative(mask.image, data)}
        kept = {"format": mask.format, "entry": mask.entry, "classes": list(mask.classes)}
        return paths | kept
    if isinstance(mask, MaskPage):
        return {"stack": _relative(mask.path, data), "page": mask.page}
    return _relative(mask, data) if mask else None


def _mask_from_json(stored: Any, data: Path) -> Mask | None:
    if isinstance(stored, dict) and "parts" in stored:
        paths = tuple(data / path for path in stored["parts"])
        return MaskParts(paths, tuple(stored["values"]))
    if isinstance(stored, dict) and "shapes" in stored:
        return ShapesMask(
            path=data / stored["shapes"],
            format=stored["format"],
            image=data / stored["image"],
            entry=stored["entry"],
            classes=tuple(stored["classes"]),
        )
    if isinstance(stored, dict) and "stack" in stored:
        return MaskPage(data / stored["stack"], stored["page"])
    if isinstance(stored, dict):
        return CocoMask(data / stored["coco"], stored["image_id"])
    return data / stored if stored else None


def _relative(path: Path, folder: Path) -> str:
    """Return a path relative to the folder if it is inside, otherwise the absolute path."""
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return str(path.resolve())
