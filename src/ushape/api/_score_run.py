"""A run and annotated cases -> scores, report and model card: shared by train and evaluate."""

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


def judge_and_report(
    run: Run,
    predictor: Predictor,
    cases: Sequence[Case],
    target: Path,
    console: Console,
    what: str,
    *,
    noun: str,
    seen_cases: int,
) -> Summary:
    """Scores cases, writes scores, report and model card into a folder.

    Args:
        noun: What a group of them is, in the plural.
        seen_cases: How many of them training has seen.
    """
    target.mkdir(parents=True, exist_ok=True)
    with console.progress("Evaluating") as on_progress:
        judged = evaluate_cases(predictor, cases, on_progress)
    report = _make_report(run, predictor, cases, judged, what, noun, seen_cases)
    if (rank := report.summary.rank_correlation) is not None:
        console.say(
            f"Confidence ranks {pluralize(len(judged.confidence), 'case')} as their Dice does with "
            f"a correlation of {rank:.2f} (Spearman)."
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
    """What could have let the network know the cases that it is judged on."""
    splits, group_of = run.load_splits(), run.groups()
    known = {group_of[i] for i in (*splits.train, *splits.validation) if i in group_of}
    own = {case.group for case in cases}
    paths = run.image_paths()
    if not {paths[i] for i in splits.test} >= {case.image for case in cases}:
        line = "These are other data: their groups were not compared with those of training."
    elif shared := sorted(own & known):
        line = f"{pluralize(len(shared), 'group')} of these cases also in training: "
        line += f"{', '.join(shared[:5])}."
    else:
        line = "No group of these cases was there in training or validation."
    copies = (
        f"{seen_cases} of the images were there in training or validation, as the same file or a "
        "copy of it: their scores say nothing about new ones."
        if seen_cases
        else "No image is a copy of one of training or validation, byte by byte."
    )
    chosen = "The best epoch, thresholds and cleaning were chosen on validation cases only."
    return [line, copies, chosen]


def count_seen(run: Run, cases: Sequence[Case]) -> int:
    """Cases whose image is one that training or validation used: the same file, or its copy."""
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
        f"Trained on: {len(run.image_paths())} cases, checksum {run.data_checksum or 'not taken'} "
        "(SHA-256 of names and contents; of files above 16 MiB of their length and ends)",
    ]


def _commands(run: Run) -> list[str]:
    """That of the training, and this one where it is another."""
    now = command_line()
    if run.command in ("", now):
        return [f"Command: {now}"]
    return [f"Trained with: {run.command}", f"Scored with: {now}"]
