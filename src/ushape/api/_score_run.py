"""Score a run on annotated cases and write scores, report and model card."""

from __future__ import annotations

import filecmp
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ushape._version import __version__
from ushape.console import Console
from ushape.evaluation.breakdowns import break_down
from ushape.evaluation.evaluate_cases import Evaluation, evaluate_cases
from ushape.evaluation.storage import Report, save_report
from ushape.evaluation.summary import Summary, summarize
from ushape.formatting import command_line, pluralize
from ushape.inference.predictor import Predictor
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.reports.report import write_pages
from ushape.types import Case


def score_and_report(
    run: Run,
    predictor: Predictor,
    cases: Sequence[Case],
    target: Path,
    console: Console,
    *,
    what: str,
    noun: str,
    seen_cases: int,
) -> Summary:
    """Score cases and write scores, report and model card into a folder.

    Args:
        target: Folder to write to.
        what: Description of the cases for the title of the report.
        noun: Name of the groups, in the plural.
        seen_cases: Number of cases that training or validation used.
    """
    target.mkdir(parents=True, exist_ok=True)
    with console.progress("Evaluating") as on_progress:
        judged = evaluate_cases(predictor, cases, on_progress)
    report = _make_report(run, predictor, cases, judged, what, noun, seen_cases)
    if (rank := report.summary.rank_correlation) is not None:
        console.say(
            f"Rank correlation of confidence and Dice over "
            f"{pluralize(len(judged.confidence), 'case')}: {rank:.2f} (Spearman)."
        )
    save_report(target, report)
    write_pages(target, report)
    return report.summary


def _make_report(
    run: Run,
    predictor: Predictor,
    cases: Sequence[Case],
    judged: Evaluation,
    what: str,
    noun: str,
    seen_cases: int,
) -> Report:
    scores, plan = judged.scores, predictor.plan
    seed = plan.recipe.seed
    summary = summarize(
        scores, noun=noun, seed=seed, seen_cases=seen_cases, reliability=judged.reliability
    )
    summary = replace(
        summary,
        distance_unit=judged.unit.name,
        rank_correlation=judged.rank_correlation,
        topology=judged.topology,
    )
    return Report(
        title=f"{run.folder.resolve().name}: {what}",
        summary=summary,
        scores=tuple(scores),
        epochs=tuple(run.load_metrics()),
        split_lines=run.load_splits().text.splitlines(),
        leak_lines=_leak_lines(run, cases, seen_cases),
        plan_lines=(*plan.reasons, *predictor.tuning.report),
        reproduce_lines=_reproduce_lines(run, plan),
        pictures=judged.pictures,
        breakdowns=break_down(scores, cases, noun=noun, seed=seed),
    )


def _leak_lines(run: Run, cases: Sequence[Case], seen_cases: int) -> list[str]:
    """Describe whether the network may have seen the cases, or related ones, before.

    The paths are resolved: those of a run that was loaded are absolute.
    """
    splits, group_of = run.load_splits(), run.groups()
    known = {group_of[i] for i in (*splits.train, *splits.validation) if i in group_of}
    own = {case.group for case in cases}
    paths = run.image_paths()
    test = {paths[i].resolve() for i in splits.test}
    if not test >= {case.image.resolve() for case in cases}:
        line = "These are other data: their groups were not compared with those of training."
    elif shared := sorted(own & known):
        line = f"{pluralize(len(shared), 'group')} of these cases also in training: "
        line += f"{', '.join(shared[:5])}."
    else:
        line = "No group of these cases was used in training or validation."
    copies = (
        f"{seen_cases} of the images were used in training or validation, as the same file or a "
        "copy of it: their scores do not apply to new images."
        if seen_cases
        else "No image is an exact copy of one used in training or validation."
    )
    chosen = "The best epoch and the postprocessing were chosen on validation cases only."
    return [line, copies, chosen]


def count_seen(run: Run, cases: Sequence[Case]) -> int:
    """Count the cases whose image, or an exact copy of it, was used in training or validation."""
    splits = run.load_splits()
    known_ids = {*splits.train, *splits.validation}
    used = [path for case_id, path in run.image_paths().items() if case_id in known_ids]
    known = {path.resolve() for path in used}
    by_size: dict[int, list[Path]] = {}
    for path in used:
        if path.is_file():
            by_size.setdefault(path.stat().st_size, []).append(path)

    def is_seen(image: Path) -> bool:
        if image.resolve() in known or not image.is_file():
            return image.resolve() in known
        alike = by_size.get(image.stat().st_size, [])
        return any(filecmp.cmp(image, path, shallow=False) for path in alike)

    return sum(is_seen(case.image) for case in cases)


def _reproduce_lines(run: Run, plan: Plan) -> list[str]:
    facts = run.weight_facts()
    return [
        f"ushape {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        f"{plan.machine.name}, {plan.machine.cores} cores, {plan.machine.device}",
        f"Seed {plan.recipe.seed}; weights of epoch {facts.get('epoch', '?')}",
        *_commands(run),
        f"Data: {len(run.image_paths())} cases, checksum {run.data_checksum or 'not computed'} "
        "(SHA-256 of names and contents; for files above 16 MiB, of their length and ends)",
    ]


def _commands(run: Run) -> list[str]:
    """Return the command of the training, and that of the scoring if it is another one."""
    now = command_line()
    if run.command in ("", now):
        return [f"Command: {now}"]
    return [f"Trained with: {run.command}", f"Scored with: {now}"]
