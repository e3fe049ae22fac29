"""Command line: one command for each public function, with the same parameters and help texts.

The functions are imported when a command runs: torch takes seconds to load.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

import typer
from typer.core import TyperCommand
from typer.models import ParameterInfo

from ushape._version import __version__
from ushape.api import FUNCTIONS, load_function
from ushape.errors import (
    TemporaryError,
    UshapeError,
    explained,
    plain_finding,
    require_address_space,
)
from ushape.formatting import printable

SUMMARY = "U-Net segmentation, from a folder of images and masks to an evaluated model."

TEMPORARY_FAILURE = 75
"""Exit code of a command that may succeed later: EX_TEMPFAIL of sysexits.h."""

COMMANDS = {
    "export_model": "export",
    "find_learning_rate": "find-lr",
    "open_studio": "studio",
}
"""Names of commands that are not the name of their function with dashes."""

Output = Annotated[Path | None, "-o"]
Picture = Annotated[Path, "-o"]
Settings = Annotated[list[str] | None, "--set"]
Searches = Annotated[list[str] | None, "--search"]
SlurmSettings = Annotated[list[str] | None, "--slurm"]
Submit = Literal["slurm", "local"]
StartFrom = Annotated[Path | None, "--from"]
Quiet = Annotated[bool, "-q"]
Others = Annotated[
    list[Path] | None,
    typer.Option("--with", help="Another run to average the probabilities with (repeatable)."),
]

app = typer.Typer(
    name="ushape",
    help=SUMMARY,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def read_docstring(name: str) -> tuple[str, dict[str, str]]:
    """Read the docstring of a public function without importing its module.

    Returns:
        The text before the first section, and the text of each entry of `Args`; in place of
        `**options: Unpack[KEYWORDS]`, that of each field of the class KEYWORDS.
    """
    path = Path(__file__).parent / "api" / f"{FUNCTIONS[name]}.py"
    source = path.read_text(encoding="utf-8")
    found = re.search(rf'^def {name}\((.*?)"""(.*?)"""', source, re.DOTALL | re.MULTILINE)
    assert found, f"{name} has a docstring"
    text = inspect.cleandoc(found[2])
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)
    entries = re.findall(
        r"^ {4}\*?(\w+): (.*?)(?=^ {4}\S|\Z)",
        section[1] if section else "",
        re.DOTALL | re.MULTILINE,
    )
    summary = re.split(r"\n\n(?=[A-Z]\w+:\n)", text)[0]
    if unpacked := re.search(r"\*\*(\w+): Unpack\[(\w+)\]", found[1]):
        entries = [(key, entry) for key, entry in entries if key != unpacked[1]]
        entries += _read_keywords(unpacked[2], source)
    return summary, {key: " ".join(entry.split()) for key, entry in entries}


def _read_keywords(name: str, source: str) -> list[tuple[str, str]]:
    """Return the fields of a class of keywords and their texts.

    Args:
        source: Code of a module that defines the class or imports it from a module of ushape.
    """
    imported = re.search(rf"^from ushape\.(\S+) import .*\b{name}\b", source, re.MULTILINE)
    if imported:
        path = Path(__file__).parent.joinpath(*imported[1].split(".")).with_suffix(".py")
        source = path.read_text(encoding="utf-8")
    keywords = source.partition(f"\nclass {name}(")[2].partition("\n\n\n")[0]
    return re.findall(r'^ {4}(\w+): [^\n]+\n {4}"""(.*?)"""', keywords, re.DOTALL | re.MULTILINE)


class Command(TyperCommand):
    """Command that explains invalid option values in plain words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return list(super().parse_args(ctx, args))
        except typer.BadParameter as error:
            error.message = plain_finding(error.message)
            raise


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command.

    Parameters before `*` become arguments and those after it options. A string in `Annotated`
    is a short flag, or the option's name if that differs from the parameter's.
    """
    name = function.__name__
    summary, docs = read_docstring(name)
    signature = inspect.signature(function, eval_str=True)
    parameters = [_with_help(one, docs) for one in signature.parameters.values()]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {one.name: one.annotation for one in parameters}
    shown = COMMANDS.get(name, name.replace("_", "-"))
    app.command(shown, cls=Command, help=summary)(function)
    return function


def _with_help(parameter: inspect.Parameter, docs: dict[str, str]) -> inspect.Parameter:
    kind, *marks = (
        get_args(parameter.annotation)
        if get_origin(parameter.annotation) is Annotated
        else (parameter.annotation,)
    )
    if any(isinstance(mark, ParameterInfo) for mark in marks):
        return parameter
    text = docs.get(parameter.name, "")
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        return parameter.replace(
            annotation=Annotated[kind, typer.Argument(help=text, metavar=parameter.name.upper())]
        )
    names = marks
    if not any(mark.startswith("--") for mark in marks):
        names = ["--" + parameter.name.replace("_", "-"), *marks]
    metavar = "KEY=VALUE" if {"--set", "--slurm"} & set(names) else None
    metavar = "KEY=A,B,C" if "--search" in names else metavar
    return parameter.replace(
        annotation=Annotated[kind, typer.Option(*names, help=text, metavar=metavar)]
    )


def call(name: str, /, *arguments: Any, **options: Any) -> Any:
    """Call a public function with the options that were specified or have a default."""
    given = {key: value for key, value in options.items() if value is not None}
    require_address_space()
    return load_function(name)(*arguments, **given)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"ushape {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@command
def train(
    data: Path,
    *,
    masks: Path | None = None,
    output: Output = None,
    recipe: str | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    devices: int | None = None,
    seed: int | None = None,
    settings: Settings = None,
    plan: Path | None = None,
    splits: Path | None = None,
    start_from: StartFrom = None,
    groups: str | None = None,
    quiet: Quiet = False,
) -> None:
    call("train", **locals())


@command
def resume(
    run: Path, *, recipe: str | None = None, devices: int | None = None, quiet: Quiet = False
) -> None:
    call("resume", **locals())


@command
def cross_validate(
    data: Path,
    *,
    folds: int,
    masks: Path | None = None,
    output: Output = None,
    recipe: str = "auto",
    minutes: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int | None = None,
    settings: Settings = None,
    start_from: StartFrom = None,
    groups: str | None = None,
    submit: Submit | None = None,
    partition: str | None = None,
    account: str | None = None,
    job_minutes: int | None = None,
    memory_gb: float | None = None,
    gpus: int | None = None,
    max_jobs: int | None = None,
    slurm: SlurmSettings = None,
    quiet: Quiet = False,
) -> None:
    call("cross_validate", **locals())


@command
def learning_curve(
    data: Path,
    *,
    masks: Path | None = None,
    output: Output = None,
    recipe: str = "auto",
    minutes: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int | None = None,
    settings: Settings = None,
    start_from: StartFrom = None,
    groups: str | None = None,
    points: int = 4,
    submit: Submit | None = None,
    partition: str | None = None,
    account: str | None = None,
    job_minutes: int | None = None,
    memory_gb: float | None = None,
    gpus: int | None = None,
    max_jobs: int | None = None,
    slurm: SlurmSettings = None,
    quiet: Quiet = False,
) -> None:
    call("learning_curve", **locals())


@command
def tune(
    data: Path,
    *,
    masks: Path | None = None,
    output: Output = None,
    recipe: str = "auto",
    minutes: float | None = None,
    epochs: int | None = None,
    trials: int | None = None,
    search: Searches = None,
    device: str = "auto",
    seed: int | None = None,
    settings: Settings = None,
    start_from: StartFrom = None,
    groups: str | None = None,
    quiet: Quiet = False,
) -> None:
    call("tune", **locals())


@command
def plan(
    data: Path,
    *,
    masks: Path | None = None,
    output: Output = None,
    recipe: str = "auto",
    minutes: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int | None = None,
    settings: Settings = None,
    splits: Path | None = None,
    start_from: StartFrom = None,
    groups: str | None = None,
    explain: bool = False,
    overwrite: bool = False,
    quiet: Quiet = False,
) -> None:
    call("plan", **locals())


@command
def check(
    data: Path,
    *,
    masks: Path | None = None,
    output: Output = None,
    fix: Path | None = None,
    settings: Settings = None,
    groups: str | None = None,
    as_json: Annotated[bool, "--json"] = False,
    quiet: Quiet = False,
) -> None:
    if call("check", **locals()).has_errors:
        raise typer.Exit(1)


@command
def evaluate(
    run: Path,
    data: Path | None = None,
    *,
    masks: Path | None = None,
    output: Output = None,
    overwrite: bool = False,
    device: str = "auto",
    recipe: str | None = None,
    groups: str | None = None,
    quiet: Quiet = False,
) -> None:
    call("evaluate", **locals())


@command
def report(
    runs: list[Path], *, output: Output = None, overwrite: bool = False, quiet: Quiet = False
) -> None:
    call("report", *runs, output=output, overwrite=overwrite, quiet=quiet)


@command
def compare(
    runs: list[Path], *, output: Output = None, overwrite: bool = False, quiet: Quiet = False
) -> None:
    call("compare", *runs, output=output, overwrite=overwrite, quiet=quiet)


@command
def predict(
    run: Path,
    images: list[Path],
    *,
    output: Output = None,
    overlay: bool = False,
    probabilities: Literal["npz", "tif", "zarr"] | None = None,
    probability_type: Literal["uint8", "float16", "float32"] | None = None,
    contours: Literal["geojson", "imagej", "coco"] | None = None,
    instances: Annotated[bool | None, "--instances/--no-instances"] = None,
    table: bool = False,
    columns: Literal["basic", "full"] = "basic",
    uncertainty: bool = False,
    dicom_seg: bool = False,
    zarr_labels: bool = False,
    rle: Path | None = None,
    rle_order: Literal["row", "column"] = "row",
    others: Others = None,
    part: str | None = None,
    overwrite: bool = False,
    verify: bool = False,
    strict: bool = False,
    device: str = "auto",
    backend: str = "torch",
    settings: Settings = None,
    recipe: str | None = None,
    quiet: Quiet = False,
) -> None:
    values = locals()
    call("predict", [values.pop("run"), *(values.pop("others") or ())], **values)


@command
def predict_zarr(
    run: Path,
    image: Path,
    *,
    output: Annotated[Path, "-o"],
    probabilities: bool = False,
    objects: bool = False,
    part: str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    ome_version: Literal["0.4", "0.5"] = "0.5",
    chunk: int | None = None,
    shard: int | None = None,
    memory_gb: float = 0.5,
    others: Others = None,
    overwrite: bool = False,
    device: str = "auto",
    backend: str = "torch",
    settings: Settings = None,
    recipe: str | None = None,
    quiet: Quiet = False,
) -> None:
    values = locals()
    call("predict_zarr", [values.pop("run"), *(values.pop("others") or ())], **values)


@command
def export_model(
    run: Path,
    *,
    to: str,
    output: Annotated[Path | None, "-o", "--folder"] = None,
    result: Annotated[Literal["probabilities", "mask"], "--output"] = "probabilities",
    fixed_intensity: bool = False,
    authors: Annotated[list[str] | None, "--author"] = None,
    license: str | None = None,
    others: Others = None,
    overwrite: bool = False,
    recipe: str | None = None,
    quiet: Quiet = False,
) -> None:
    values = locals()
    call("export_model", [values.pop("run"), *(values.pop("others") or ())], **values)


@command
def serve(
    run: Path,
    *,
    port: int = 8000,
    host: str = "127.0.0.1",
    token: str | None = None,
    allow_host: list[str] | None = None,
    max_megabytes: float = 1000.0,
    max_megapixels: float = 400.0,
    max_seconds: float = 60.0,
    max_queue: int = 64,
    device: str = "auto",
    backend: str = "torch",
    settings: Settings = None,
    recipe: str | None = None,
    quiet: Quiet = False,
) -> None:
    call("serve", **locals())


@command
def preview(
    data: Path,
    *,
    masks: Path | None = None,
    output: Picture = Path("preview.png"),
    recipe: str = "auto",
    strength: float = 1.0,
    settings: Settings = None,
    groups: str | None = None,
    overwrite: bool = False,
    quiet: Quiet = False,
) -> None:
    call("preview", **locals())


@command
def open_studio(
    data: Path,
    images: Path | None = None,
    *,
    port: int = 8765,
    masks: Path | None = None,
    no_browser: bool = False,
    quiet: Quiet = False,
) -> None:
    call("open_studio", **locals())


@command
def weight_map(
    mask: Path,
    *,
    output: Picture = Path("weights.png"),
    w0: float = 10.0,
    sigma: float = 5.0,
    instances: bool = False,
    overwrite: bool = False,
    quiet: Quiet = False,
) -> None:
    call("weight_map", **locals())


@command
def find_learning_rate(
    data: Path,
    *,
    masks: Path | None = None,
    output: Picture = Path("lr.png"),
    recipe: str = "auto",
    min_lr: Annotated[float, "--min-lr", "--min-rate", "--min"] = 1e-6,
    max_lr: Annotated[float, "--max-lr", "--max-rate", "--max"] = 10.0,
    steps: int = 50,
    divergence: float = 4.0,
    device: str = "auto",
    settings: Settings = None,
    groups: str | None = None,
    overwrite: bool = False,
    quiet: Quiet = False,
) -> None:
    call("find_learning_rate", **locals())


@command
def recipes(name: str | None = None, *, all_keys: Annotated[bool, "--all"] = False) -> None:
    print(call("recipes", **locals()), end="")


@command
def fetch(
    name: str,
    *,
    to: Path = Path("data"),
    address: Annotated[str | None, "--from"] = None,
    sha256: str | None = None,
    quiet: Quiet = False,
) -> None:
    call("fetch", **locals())


@command
def example(folder: Path, *, count: int = 48, seed: int = 0, quiet: Quiet = False) -> None:
    call("example", **locals())


def with_current_names(arguments: Sequence[str]) -> list[str]:
    """Replace the former spellings of commands.

    `weights` is `weight-map`, `lr` is `find-lr`, `train --resume RUN` is `resume RUN`, and
    `train DATA --folds 5` is `cross-validate DATA --folds 5`.
    """
    name, *others = arguments or [""]
    _refuse_table_value(others)
    names = {one.partition("=")[0] for one in others}
    if name == "train" and "--folds" in names:
        return ["cross-validate", *others]
    if name == "train" and "--resume" in names:
        place = next(i for i, one in enumerate(others) if one.partition("=")[0] == "--resume")
        value = others[place].partition("=")[2]
        return ["resume", *others[:place], *([value] if value else []), *others[place + 1 :]]
    current = {"weights": "weight-map", "lr": "find-lr"}.get(name, name)
    return [current, *others] if arguments else []


def _refuse_table_value(arguments: Sequence[str]) -> None:
    """Refuse `--table full`: `full` would be taken for the path of an image.

    Raises:
        UshapeError: if no such file exists.
    """
    for option, value in itertools.pairwise(arguments):
        if option == "--table" and value in ("basic", "full") and not Path(value).exists():
            raise UshapeError(
                f"--table takes no value, so {value!r} would be read as the path of an image.",
                code="option_takes_no_value",
                hint=f"Write: --table --columns {value}",
            )


def main() -> None:
    """Run the command line.

    Exit codes: 0 success, 1 errors found by `check`, 2 a mistake of the user, 75 a server that
    cannot be used now; see `__main__` for those of signals.
    """
    # It warns if the home folder is read-only, which does not matter for a few plots.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        _require_working_directory()
        app(with_current_names(sys.argv[1:]))
    except UshapeError as error:
        print_error(error)
    except Exception as error:
        known = explained(error)
        if known is None:
            raise
        print_error(known)


def _require_working_directory() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UshapeError(
            "The current folder no longer exists.",
            code="missing_working_directory",
            hint="Change to another folder, e.g. cd ~",
        ) from None


def print_error(error: UshapeError) -> NoReturn:
    """Print an error with its hint, and exit with code 2; with 75 if it may pass by itself."""
    print(f"Error: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"Hint: {printable(error.hint)}", file=sys.stderr)
    sys.exit(TEMPORARY_FAILURE if isinstance(error, TemporaryError) else 2)
