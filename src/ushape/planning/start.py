"""Weights of an earlier run that training starts from (--from)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from ushape import config
from ushape.config import AUTO
from ushape.data.scan import DatasetStats
from ushape.data.splits import Splits
from ushape.errors import ConfigError, PlanError, RunError
from ushape.formatting import quoted
from ushape.io.files import read_head, real_path
from ushape.labels import LabelSpace
from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.models.transfer import Transfer, have_equal_bodies, transfer_weights
from ushape.planning.encoder_weights import is_available
from ushape.planning.plan import Plan, StartingWeights
from ushape.planning.recipe import Recipe
from ushape.planning.rules.result import RuleResult
from ushape.planning.run import Run
from ushape.planning.seen_images import SeenImages, name_image, seen_by
from ushape.planning.start_decision import NAMES, usual_weights
from ushape.planning.weights import PICKLES, checksum_of_file, read_shapes, read_weights

OTHER_FILE = "Specify the folder of a run, or an intact file of weights (.safetensors)."


@dataclass(frozen=True)
class Source:
    """A file of weights, and the run that it belongs to, if any."""

    weights_path: Path
    run: Run | None

    @classmethod
    def find(cls, name: str) -> Source:
        """Find the weights of a run folder, or a file of weights.

        Raises:
            RunError: if there are none, or if the file is a pickle.
        """
        path = Path(name)
        if not path.exists():
            raise RunError(
                f"{path} does not exist, so training cannot start from it.",
                code="weights_missing",
                hint="Specify a run folder, such as runs/my_images, or a file of weights "
                "(.safetensors).",
            )
        if path.is_dir():
            run = Run.open(path)
            return cls(run.weights_path, run)
        if read_head(path, 4).startswith(PICKLES):
            raise _pickle_refused(path)
        if path.suffix.lower() in SUFFIXES_OF_TORCH and not _is_safetensors(path):
            raise RunError(
                f"{path} contains no weights: it is neither a file in the format safetensors, nor "
                "one that torch.save writes.",
                code="weights_of_unknown_format",
                hint="Copy the file again if it is damaged. Specify a run folder, such as "
                "runs/my_images, or a file of weights (.safetensors).",
            )
        # The weights of each epoch are in the folder epochs.
        above = (path.parent, path.parent.parent)
        runs = (Run(folder) for folder in above if Run(folder).plan_path.is_file())
        return cls(path, next(runs, None))

    def load_plan(self) -> Plan | None:
        """Return the plan of the run, or None if the weights do not belong to a run."""
        return None if self.run is None else self.run.load_plan()


SUFFIXES_OF_TORCH = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar")
"""Suffixes of files that torch.save usually writes."""


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a header, and a header in JSON."""
    head = read_head(path, 9)
    return len(head) == 9 and head[8:] == b"{"


def _pickle_refused(path: Path) -> RunError:
    source, target = (json.dumps(str(own)) for own in (path, path.with_suffix(".safetensors")))
    code = (
        "import torch, safetensors.torch as st; "
        f"st.save_file(torch.load({source}, weights_only=True), {target})"
    )
    return RunError(
        f"{path} is a pickle, which could execute code when it is loaded, so it is not read.",
        code="weights_are_pickle",
        hint=f"Convert its dictionary of tensors once: python -c {quoted(code)}. Of a run, name "
        "the folder.",
    )


def adopt_network(recipe: Recipe) -> Recipe:
    """Return the recipe with the network of the run that it starts from, if any.

    Settings of the network in which the recipe differs from the defaults are kept.

    Raises:
        RunError: if there are no weights to start from, or if they are damaged.
        ConfigError: if a setting of the network does not fit the weights of the run.
    """
    if recipe.start_from is None:
        return recipe
    recipe = replace(recipe, start_from=str(real_path(Path(recipe.start_from))))
    source = Source.find(recipe.start_from or "")
    read_shapes(source.weights_path, OTHER_FILE)  # Reject a damaged file before data are read.
    plan = source.load_plan()
    if plan is None:
        return recipe
    if recipe.preprocessing.slices == AUTO:  # Weights of slices predict slices.
        slices = plan.recipe.preprocessing.slices
        recipe = replace(recipe, preprocessing=replace(recipe.preprocessing, slices=slices))
    theirs, default = plan.recipe.network, NetworkConfig()
    own = {
        one.name: getattr(recipe.network, one.name)
        for one in fields(NetworkConfig)
        if one.name != "dims" and getattr(recipe.network, one.name) != getattr(default, one.name)
    }
    merged = replace(theirs, **own)
    if not have_equal_bodies(merged, theirs):
        differing = {key: value for key, value in own.items() if value != getattr(theirs, key)}
        raise _other_network(source, theirs, differing)
    if merged.is_pretrained and not is_available(merged.encoder_weights):
        merged = replace(merged, encoder_weights="none")  # The run contains the trained encoder.
    return replace(recipe, network=replace(merged, dims=recipe.network.dims))


def _other_network(
    source: Source, theirs: NetworkConfig, differing: Mapping[str, object]
) -> ConfigError:
    mine, trained = config.to_dict(replace(theirs, **differing)), config.to_dict(theirs)  # type: ignore[arg-type]
    pairs = [f"network.{key} is {mine[key]} instead of {trained[key]}" for key in differing]
    return ConfigError(
        f"The weights of {source.weights_path} do not fit the recipe: {', '.join(pairs)}.",
        code="start_network_differs",
        hint=f"Omit network.{' and network.'.join(differing)} to use the network of the run, or "
        "train without --from.",
    )


def refuse_other_dimensions(recipe: Recipe, dims: int) -> None:
    """Check that weights for 2D are not used for volumes, or the reverse.

    Raises:
        PlanError: if they are for another number of dimensions.
        RunError: if the file of weights cannot be read.
    """
    if recipe.start_from is None:
        return
    path = Source.find(recipe.start_from).weights_path
    found = {len(shape) - 2 for shape in read_shapes(path, OTHER_FILE).values() if len(shape) > 3}
    if found and dims not in found:
        hint = "Start from a network that was trained on images with as many axes"
        if dims == 3 and found == {2}:
            hint = (
                "Add --set preprocessing.slices=1 to predict the volumes slice by slice, start "
                "from a network for volumes"
            )
        raise PlanError(
            f"{path} contains the weights of a {max(found)}D network, but the images have {dims} "
            "axes.",
            code="dimensions_mismatch",
            hint=f"{hint}, or omit --from.",
        )


def describe_start(
    recipe: Recipe, channels: int, space: LabelSpace, stats: DatasetStats, splits: Splits
) -> tuple[StartingWeights | None, list[RuleResult]]:
    """Compare the weights to start from with the planned network.

    Args:
        recipe: Recipe without "auto" values.
        channels: Number of channels of the images.
        space: Label space of the plan, with all outputs of the network.

    Raises:
        PlanError: if no convolution fits.
        RunError: if the weights are damaged or not finite.
    """
    if recipe.start_from is None:
        return None, []
    source = Source.find(recipe.start_from)
    found, seen = _transfer(source, recipe, channels, space), seen_by(source.run)
    start = StartingWeights(
        path=str(source.weights_path),
        checksum=checksum_of_file(source.weights_path),
        loaded=found.loaded,
        tensors=len(found.weights),
        adapted=found.adapted,
        fresh=found.fresh,
        seen_validation=count_seen(seen, stats, splits.validated),
        seen_test=count_seen(seen, stats, splits.test),
        is_history_known=seen.is_complete,
    )
    usual = NAMES[usual_weights(recipe)]
    how = (
        f"A short trial from these weights and one from {usual} decide with which of them training "
        "continues."
        if recipe.train.compare_start
        else f"They are not compared with {usual} (train.compare_start)."
    )
    result = RuleResult(
        text=f"{start.text} {how} {start.warning}".strip(),
        fact=f"SHA-256 of the file: {start.checksum}",
        alternative="training without --from",
        source="Earlier weights mainly speed up the convergence (Raghu et al. 2019, arXiv "
        "1902.07208), and those of different images can be worse than random ones. Each trial has "
        "an eighth of the training's steps, and the higher validation Dice decides.",
    )
    return start, [result]


def count_seen(seen: SeenImages, stats: DatasetStats, case_ids: Collection[str]) -> int:
    """Count the cases whose image the weights were trained or selected on."""
    images, files, chosen = set(seen.images), stats.file_checksums, set(case_ids)
    cases = (case for case in stats.grouping.cases if case.id in chosen)
    return sum(
        name_image(files.get(case.image, b"").hex(), case.page, case.box) in images
        for case in cases
    )


def start_of_given_plan(plan: Plan, stats: DatasetStats, splits: Splits) -> StartingWeights | None:
    """Return what a plan contains about its starting weights, for the split that is used.

    Raises:
        RunError: if the file of weights is missing, or is not the one of the plan.
    """
    if plan.start is None or plan.recipe.start_from is None:
        return None
    source = Source.find(plan.recipe.start_from)
    _refuse_changed(source, plan.start)
    seen = seen_by(source.run)
    return replace(
        plan.start,
        seen_validation=count_seen(seen, stats, splits.validated),
        seen_test=count_seen(seen, stats, splits.test),
        is_history_known=seen.is_complete,
    )


def initial_weights(plan: Plan) -> dict[str, Tensor]:
    """Return the weights that training of a plan starts from.

    Raises:
        RunError: if the file of weights is missing, or is not the one of the plan.
    """
    assert plan.start is not None
    assert plan.recipe.start_from is not None
    source = Source.find(plan.recipe.start_from)
    _refuse_changed(source, plan.start)
    preprocessing = plan.preprocessing
    channels = preprocessing.input_channels
    return _transfer(source, plan.recipe, channels, preprocessing.space).weights


def _refuse_changed(source: Source, start: StartingWeights) -> None:
    if checksum_of_file(source.weights_path) != start.checksum:
        raise RunError(
            f"{source.weights_path} has changed since the plan was made.",
            code="start_weights_changed",
            hint="Restore the file, or make a new plan.",
        )


def _transfer(source: Source, recipe: Recipe, channels: int, space: LabelSpace) -> Transfer:
    """Take over what fits; everything else has the initial values of the recipe's seed."""
    path = source.weights_path
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        fresh = build_model(recipe.network, channels, space.outputs).state_dict()
    plan = source.load_plan()
    found = transfer_weights(
        read_weights(path, OTHER_FILE),
        fresh,
        recipe.network,
        channels,
        space.outputs,
        rows=None if plan is None else match_classes(plan.preprocessing.space, space),
    )
    if found.has_kernels:
        return found
    name = next(iter(fresh))
    shape = read_shapes(path).get(name)
    has = "it has no such tensor" if shape is None else f"there it has the shape {shape}"
    raise PlanError(
        f"No convolution of {path} fits the network: {name} needs the shape "
        f"{tuple(fresh[name].shape)}, and {has}.",
        code="no_weights_fit",
        hint="Specify the folder of a run, whose network is then used, or set the network of the "
        "weights, e.g. --set network.widths=[16,32,64].",
    )


def match_classes(before: LabelSpace, now: LabelSpace) -> list[int | None] | None:
    """Return the channel of each output in an earlier network, None for a new one.

    Classes are compared by name; if no name is known but their number is the same, by their order.

    Returns:
        None if the head is kept as it is.
    """
    nothing: list[int | None] = [None] * now.outputs
    has_same = before.has_distance and now.has_distance
    distance = [before.channels if has_same else None] * now.has_distance
    if before.is_exclusive != now.is_exclusive:
        return nothing
    places = {name: place for place, name in enumerate(before.channel_names)}
    rows = [places.get(name) for name in now.channel_names]
    if any(row is not None for row in rows[now.foreground]):
        return [*([0, *rows[1:]] if now.is_exclusive else rows), *distance]
    if before.channels != now.channels:
        return nothing
    is_same = before.has_distance == now.has_distance
    return None if is_same else [*range(now.channels), *distance]
