"""Score a run on annotated cases and write scores, report and model card."""

from __future__ import annotations

import filecmp
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ushape._version import __version__
from ushape.config import resolved
from ushape.console import Console
from ushape.data.splits import Splits
from ushape.errors import DataError, RunError
from ushape.evaluation.baselines import (
    Baselines,
    load_baselines,
    measure_baselines,
    save_baselines,
)
from ushape.evaluation.breakdown import break_down
from ushape.evaluation.evaluate_cases import Evaluation, evaluate_cases
from ushape.evaluation.storage import Report, save_report
from ushape.evaluation.summary import Summary, summarize
from ushape.formatting import command_line, pluralize, quoted
from ushape.inference.predictor import Predictor
from ushape.io.files import real_path
from ushape.labels import LabelSpace
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.planning.start_decision import start_lines
from ushape.reports.report import write_pages
from ushape.types import Box, Case, CaseFacts, select_cases


@dataclass(frozen=True, kw_only=True)
class KnownCases:
    """Cases of a run, and the split that was made of them."""

    splits: Splits
    images: Mapping[str, Path]
    """Image file of each case id, whether it still exists or not."""

    parts: Mapping[str, tuple[int | None, Box | None]]
    """Page and region of the image file of each case, by id; None for the whole file."""

    groups: Mapping[str, str]
    """Group of each case id."""

    @classmethod
    def of(cls, splits: Splits, cases: Iterable[Case]) -> KnownCases:
        """Collect them from the cases of a training run."""
        cases = list(cases)
        return cls(
            splits=splits,
            images={case.id: case.image for case in cases},
            parts={case.id: (case.page, case.box) for case in cases},
            groups={case.id: case.group for case in cases},
        )

    @classmethod
    def load(cls, run: Run) -> KnownCases:
        """Load them from a run folder; the data may be missing."""
        return cls(
            splits=run.load_splits(),
            images=run.image_paths(),
            parts=run.image_parts(),
            groups=run.groups(),
        )

    @property
    def used(self) -> list[str]:
        """Ids of the cases of training and validation."""
        return [i for i in (*self.splits.train, *self.splits.validation) if i in self.images]

    def count_seen(self, cases: Sequence[Case]) -> int:
        """Count the cases whose image, or an exact copy, was used in training or validation.

        If the network has seen only some pages or regions of an image, only these count.
        """
        used: dict[Path, list[tuple[int | None, Box | None]]] = {}
        for case_id in self.used:
            used.setdefault(real_path(self.images[case_id]), []).append(self.parts[case_id])
        by_size: dict[int, list[Path]] = {}
        for path in used:
            if path.is_file():
                by_size.setdefault(path.stat().st_size, []).append(path)

        def find_copies(image: Path) -> list[Path]:
            own = real_path(image)
            if own in used or not own.is_file():
                return [own] if own in used else []
            alike = by_size.get(own.stat().st_size, [])
            return [path for path in alike if filecmp.cmp(own, path, shallow=False)]

        copies = {image: find_copies(image) for image in {case.image for case in cases}}
        return sum(
            any(
                _overlap((case.page, case.box), part)
                for path in copies[case.image]
                for part in used[path]
            )
            for case in cases
        )

    def describe_leaks(self, cases: Sequence[Case], seen_cases: int) -> list[str]:
        """Describe whether the network may have seen the cases, or related ones, before."""
        known = {self.groups[case_id] for case_id in self.used}
        test = {real_path(self.images[case_id]) for case_id in self.splits.test}
        if not test >= {real_path(case.image) for case in cases}:
            line = "These cases are not the test set; their groups were not compared with training."
        elif shared := sorted({case.group for case in cases} & known):
            line = f"Groups that were also used in training or validation: {len(shared)} "
            line += f"({', '.join(shared[:5])}{', ...' if len(shared) > 5 else ''})."
        else:
            line = "No group of these cases was used in training or validation."
        copies = (
            f"Images that were also used in training or validation, as the same file or a copy: "
            f"{seen_cases}. Their scores do not apply to new images."
            if seen_cases
            else "No image is an exact copy of one used in training or validation."
        )
        chosen = (
            "The best epoch and the postprocessing were chosen on validation cases only."
            if self.splits.validation
            else "The best epoch was chosen on the training cases."
        )
        return [line, copies, chosen]


def _overlap(one: tuple[int | None, Box | None], other: tuple[int | None, Box | None]) -> bool:
    """Return whether two pages or regions of one file have pixels in common."""
    (page, box), (other_page, other_box) = one, other
    if page is not None and other_page is not None and page != other_page:
        return False
    if box is None or other_box is None:
        return True
    edges = zip(box, other_box, strict=True)
    return all(max(a[0], b[0]) < min(a[1], b[1]) for a, b in edges)


def score_and_report(
    run: Run,
    predictor: Predictor,
    cases: Sequence[Case],
    known: KnownCases,
    target: Path,
    console: Console,
    *,
    what: str,
    noun: str,
    training: Sequence[CaseFacts] | None = None,
    mask_space: LabelSpace | None = None,
) -> Summary:
    """Score cases and write scores, report and model card into a folder.

    Args:
        known: Cases of the run, to report those that it has seen.
        target: Folder to write to.
        what: Description of the cases for the title of the report.
        noun: Name of the groups, in the plural.
        training: Training cases (default: loaded from the run if they are needed).
        mask_space: The classes with the mask values of these cases, if they differ from the run's.
    """
    target.mkdir(parents=True, exist_ok=True)
    baselines = _find_baselines(run, predictor.plan, training)
    if baselines.note:
        console.say(baselines.text)
    elif target == run.folder:
        save_baselines(run.baselines_path, baselines)
    with console.progress("Evaluating") as on_progress:
        evaluation = evaluate_cases(predictor, cases, on_progress, baselines, mask_space)
    report = _make_report(run, predictor, cases, known, evaluation, what, noun)
    report = replace(report, summary=replace(report.summary, baseline_note=baselines.text))
    if line := report.summary.rank_text:
        console.say(line)
    save_report(target, report)
    write_pages(target, report)
    console.say(report.summary.verdict)
    return report.summary


def _find_baselines(run: Run, plan: Plan, training: Sequence[CaseFacts] | None) -> Baselines:
    """Load the baselines of the training cases, or measure them if the run has none yet."""
    space = plan.preprocessing.space
    if run.baselines_path.exists():
        return load_baselines(run.baselines_path, space, plan.preprocessing.channels)
    try:
        if training is None:
            training = select_cases(run.load_cases(), run.load_splits().train)
        return measure_baselines(training, space, plan.preprocessing.channels)
    except (RunError, DataError) as error:
        return Baselines(note=error.message)


def _make_report(
    run: Run,
    predictor: Predictor,
    cases: Sequence[Case],
    known: KnownCases,
    evaluation: Evaluation,
    what: str,
    noun: str,
) -> Report:
    scores, plan = evaluation.scores, predictor.plan
    seed, seen_cases = plan.recipe.seed, known.count_seen(cases)
    summary = summarize(
        scores,
        noun=noun,
        seed=seed,
        seen_cases=seen_cases,
        reliability=evaluation.reliability,
        baselines=evaluation.baselines,
    )
    rule = predictor.tuning.rule
    summary = replace(
        summary,
        classes=tuple(
            replace(
                own,
                threshold_curve=evaluation.curves[own.name],
                thresholds=(rule.of(own.name).threshold,),
            )
            for own in summary.classes
        ),
        distance_unit=evaluation.unit.name,
        rank_correlation=evaluation.rank_correlation,
        rank_cases=evaluation.rank_cases,
        topology=evaluation.topology,
        is_about_objects=evaluation.is_about_objects,
        confusion=evaluation.confusion,
    )
    return Report(
        title=f"{real_path(run.folder).name}: {what}",
        summary=summary,
        scores=tuple(scores),
        epochs=tuple(run.load_metrics()),
        split_lines=known.splits.text.splitlines(),
        leak_lines=[*known.describe_leaks(cases, seen_cases), *_start_leaks(plan, known, cases)],
        plan_lines=(*plan.reasons, *start_lines(run), *predictor.tuning.report),
        reproduce_lines=_reproduce_lines(run, plan),
        baselines=evaluation.baselines,
        pictures=evaluation.pictures,
        object_pictures=evaluation.object_pictures,
        breakdowns=break_down(scores, cases, noun=noun, seed=seed),
    )


def _start_leaks(plan: Plan, known: KnownCases, cases: Sequence[Case]) -> list[str]:
    """Describe whether the starting weights have seen cases of the test set, if it is scored."""
    warning = "" if plan.start is None else plan.start.warning
    is_test = {case.id for case in cases} <= set(known.splits.test)
    return [warning] if warning and is_test else []


def _reproduce_lines(run: Run, plan: Plan) -> list[str]:
    facts, now = run.weight_facts(), command_line()
    is_same = run.command in ("", now)
    commands = (
        [f"Command: {now}"] if is_same else [f"Trained with: {run.command}", f"Scored with: {now}"]
    )
    encoder = (
        [] if plan.encoder is None else [f"Initial weights of the encoder: {plan.encoder.text}"]
    )
    train = plan.recipe.train
    used = resolved(train.threads)
    threads = f"{pluralize(used, 'thread')} (train.threads={used})"
    return [
        *encoder,
        f"ushape {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        f"{plan.machine.name}, {pluralize(plan.machine.cores, 'core')}, {plan.machine.device}, "
        f"{'' if train.minutes is None else 'up to '}{threads}",
        f"Seed {plan.recipe.seed}; weights of epoch {facts.get('epoch', '?')}",
        *commands,
        "To repeat the training with the same settings and number of threads: ushape train DATA "
        f"--plan {quoted(run.plan_path)}",
        f"Data: {len(run.image_paths())} cases, checksum {run.data_checksum or 'not computed'} "
        "(SHA-256 of names and contents; of files above 16 MiB, size, beginning and end)",
    ]
