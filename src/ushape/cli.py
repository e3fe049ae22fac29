"""The command line: the verbs of `ushape.api`. Heavy imports stand inside the functions."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from ushape.errors import ConfigError, UshapeError

app = typer.Typer(
    name="ushape",
    help="U-Net segmentation: train on a folder, measure honestly, use at once.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
Data = Annotated[
    Path, typer.Argument(help="Images and masks in one of the usual forms, or a table of them.")
]
Masks = Annotated[
    Path | None, typer.Option(help="Folder of the masks, where DATA holds the images only.")
]
Recipe = Annotated[
    str, typer.Option(help="Name, YAML file or FILE.py:FUNCTION; see `ushape recipes`.")
]
CustomCode = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="FILE.py:FUNCTION of a run with its own network or loss; executed only if named.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value of the recipe, e.g. train.batch_size=2."),
]
Seed = Annotated[int | None, typer.Option(help="Split, first weights, patches.")]
SplitsFile = Annotated[
    Path | None, typer.Option(help="A run's splits.json, edited or not, in place of a new split.")
]
RunLengthOrder = Literal["row", "column"]
RunFolder = Annotated[Path, typer.Argument(help="Folder that `ushape train` wrote.")]


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from ushape._version import __version__

        print(f"ushape {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """U-Net segmentation: train on a folder, measure honestly, use at once."""


@app.command()
def train(
    data: Annotated[
        Path | None, typer.Argument(help="Folder with images and masks in one of the usual forms.")
    ] = None,
    masks: Masks = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Run folder; default runs/NAME.")
    ] = None,
    recipe: Recipe = "auto",
    minutes: Annotated[
        float | None,
        typer.Option(help="Wall time for everything; default 30, unless --epochs is given."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Train so many epochs instead.")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or mps; for --folds several: cuda:0,cuda:1.")
    ] = "auto",
    seed: Seed = None,
    settings: Settings = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Cross-validation: so many runs, each group tested once."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="What `ushape plan -o` wrote, edited or not.")
    ] = None,
    splits: SplitsFile = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run instead; takes nothing else.")
    ] = None,
) -> None:
    """Train on a folder, evaluate on cases that were set aside, write a run."""
    if resume is not None:
        others = [data, masks, output, minutes, epochs, seed, settings, folds, plan, splits]
        if any(value is not None for value in others) or device != "auto":
            raise ConfigError(
                "--resume continues a run as planned: it takes nothing else.",
                hint="ushape train --resume RUN",
            )
        from ushape.api.train import resume as resume_run

        resume_run(resume, recipe=None if recipe == "auto" else recipe)
        return
    if data is None:
        raise ConfigError("Which data?", hint="ushape train DATA, or ushape train --resume RUN.")
    from ushape.api import train as training
    from ushape.api.cross_validate import cross_validate

    if folds is not None and (plan or splits):
        raise ConfigError(
            "--folds makes its own plans and splits.", hint="Leave --plan and --splits out."
        )
    verb = (
        partial(training.train, plan=plan, splits=splits)
        if folds is None
        else partial(cross_validate, folds=folds)
    )
    verb(
        data,
        masks=masks,
        output=output,
        recipe=recipe,
        minutes=minutes,
        epochs=epochs,
        device=device,
        seed=seed,
        settings=settings or (),
    )


@app.command("learning-curve")
def learning_curve(
    data: Data,
    masks: Masks = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; default runs/NAME-curve.")
    ] = None,
    recipe: Recipe = "auto",
    minutes: Annotated[
        float | None, typer.Option(help="For all points together, shared evenly; default 30.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Train each point for so many epochs instead.")
    ] = None,
    device: Device = "auto",
    seed: Seed = None,
    settings: Settings = None,
    points: Annotated[
        int, typer.Option(help="At most so many: all groups, half of them, a quarter, ...")
    ] = 4,
) -> None:
    """Measure what more annotated groups would bring: train on ever more of those there are."""
    from ushape.api import learning_curve as module

    module.learning_curve(
        data,
        masks=masks,
        output=output,
        recipe=recipe,
        minutes=minutes,
        epochs=epochs,
        device=device,
        seed=seed,
        settings=settings or (),
        points=points,
    )


@app.command()
def plan(
    data: Data,
    masks: Masks = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="JSON file for `train --plan`.")
    ] = None,
    recipe: Recipe = "auto",
    minutes: Annotated[float | None, typer.Option(help="As for `train`; default 30.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Train so many epochs instead.")] = None,
    device: Device = "auto",
    seed: Seed = None,
    settings: Settings = None,
    splits: SplitsFile = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="From which fact, what was next, and why.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Show what `ushape train` would do; write it as a file to edit and run."""
    from ushape.api import plan as module

    module.plan(
        data,
        masks=masks,
        output=output,
        recipe=recipe,
        minutes=minutes,
        epochs=epochs,
        device=device,
        seed=seed,
        settings=settings or (),
        splits=splits,
        explain=explain,
        overwrite=overwrite,
    )


@app.command()
def check(
    data: Data,
    masks: Masks = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="For check.html and check.json; default checks/NAME."),
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="New folder for a corrected copy; DATA stays as it is.")
    ] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Find every problem of a data set at once; exit code 1 where training would stop."""
    from ushape.api import check as module

    checked = module.check(
        data, masks=masks, output=output, fix=fix, settings=settings or (), as_json=as_json
    )
    if checked.has_errors:
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: RunFolder,
    data: Annotated[
        Path | None, typer.Argument(help="Other annotated data; default: the run's test cases.")
    ] = None,
    masks: Masks = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for scores and report.")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    recipe: CustomCode = None,
) -> None:
    """Score a run on its test cases, or on other annotated data."""
    from ushape.api import evaluate as module

    module.evaluate(
        run,
        data,
        masks=masks,
        output=output,
        overwrite=overwrite,
        device=device,
        recipe=recipe,
    )


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="A run that was scored; several: side by side.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; default in the run.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make the report again from its scores, or put several runs on one page."""
    from ushape.api import report as module

    module.report(*runs, output=output, overwrite=overwrite)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Two or more scored runs; each against the first.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also a page, comparison.html.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare runs case by case: difference, its interval, a signed-rank test."""
    from ushape.api import report as module

    module.compare(*runs, output=output, overwrite=overwrite)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run, or the folder of a cross-validation.")],
    images: Annotated[
        list[Path],
        typer.Argument(help="Files, folders, patterns, tables; - for names on standard input."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the masks; may be left out with --rle."),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also a PNG of the image with the mask outlined.")
    ] = False,
    probabilities: Annotated[
        Literal["npz", "tif", "zarr"] | None,
        typer.Option(help="Also the class probabilities, in this format."),
    ] = None,
    probability_type: Annotated[
        Literal["uint8", "float16", "float32"] | None,
        typer.Option(help="Of their numbers; default float32 in npz, else 0 to 255."),
    ] = None,
    contours: Annotated[
        Literal["geojson", "imagej"] | None,
        typer.Option(help="Also outlines: for QuPath, or as ROIs for ImageJ."),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Also a TIFF of numbered objects.")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="Also a CSV of objects for each image, and one for all.")
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also where, and how much, the network hesitates.")
    ] = False,
    rle: Annotated[
        Path | None, typer.Option(help="Also run lengths, img,rle_mask, as .csv or .csv.gz.")
    ] = None,
    rle_order: Annotated[
        RunLengthOrder, typer.Option(help="Pixels counted row by row (Carvana) or by column.")
    ] = "row",
    also: Annotated[
        list[Path] | None, typer.Option("--with", help="Another run, to average with; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="predict.key=value, e.g. predict.tta=all_8."),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="torch, compile, onnx, openvino, openvino-int8, or auto.")
    ] = "torch",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be predicted.")
    ] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    recipe: CustomCode = None,
) -> None:
    """Write one mask per image, in the encoding of the masks that the run was trained on."""
    from ushape.api import predict as module

    module.predict(
        [run, *(also or ())],
        images,
        output=output,
        overlay=overlay,
        probabilities=probabilities,
        probability_type=probability_type,
        contours=contours,
        instances=instances,
        table=table,
        uncertainty=uncertainty,
        rle=rle,
        rle_order=rle_order,
        overwrite=overwrite,
        strict=strict,
        device=device,
        backend=backend,
        settings=settings or (),
        recipe=recipe,
    )


@app.command()
def preview(
    data: Data,
    masks: Masks = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="A PNG.")] = Path("preview.png"),
    recipe: Recipe = "auto",
    strength: Annotated[
        float, typer.Option(help="Multiplies how much is changed, to make it visible.")
    ] = 1.0,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw a training case as the network will see it, with its augmentation."""
    from ushape.api import preview as module

    module.preview(
        data,
        masks=masks,
        output=output,
        recipe=recipe,
        strength=strength,
        settings=settings or (),
        overwrite=overwrite,
    )


@app.command()
def weights(
    mask: Annotated[Path, typer.Argument(help="A mask.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A PNG.")],
    w0: Annotated[float, typer.Option(help="Largest border weight.")] = 10.0,
    sigma: Annotated[float, typer.Option(help="Width of the border, pixels.")] = 5.0,
    instances: Annotated[
        bool, typer.Option("--instances", help="Each value of the mask is an object.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw the border weight map of a mask."""
    from ushape.api import preview as module

    module.weights(
        mask, output=output, w0=w0, sigma=sigma, instances=instances, overwrite=overwrite
    )


@app.command()
def lr(
    data: Data,
    masks: Masks = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="A PNG.")] = Path("lr.png"),
    recipe: Recipe = "auto",
    lowest: Annotated[float, typer.Option("--min", help="First learning rate.")] = 1e-6,
    highest: Annotated[float, typer.Option("--max", help="Last learning rate.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Learning rates in between.")] = 50,
    divergence: Annotated[
        float, typer.Option(help="Ends where the loss is so many times the best.")
    ] = 4.0,
    device: Device = "auto",
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Find a learning rate: sweep it through the real training step, draw the loss."""
    from ushape.api import lr as module
    from ushape.training.lr_finder import LRFinderConfig

    limits = LRFinderConfig(lowest=lowest, highest=highest, steps=steps, divergence=divergence)
    module.lr(
        data,
        masks=masks,
        output=output,
        recipe=recipe,
        limits=limits,
        device=device,
        settings=settings or (),
        overwrite=overwrite,
    )


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one as a file to edit.")] = None,
    all_keys: Annotated[
        bool, typer.Option("--all", help="Include the keys that few users need.")
    ] = False,
) -> None:
    """List the recipes, or print one as an editable file."""
    from ushape.api import recipes as module

    print(module.recipes(name, all_keys=all_keys), end="")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="lgg, isbi2012 or carvana.")],
    to: Annotated[Path, typer.Option(help="Folder; the data set gets its own in it.")] = Path(
        "data"
    ),
    address: Annotated[
        str | None, typer.Option("--from", help="A zip or tar of yours: https address or file.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum of that archive.")] = None,
) -> None:
    """Download, check and unpack a data set by name, with your own Kaggle account."""
    from ushape.api.fetch import fetch

    fetch(name, to, address=address, sha256=sha256)


@app.command()
def example(
    folder: Annotated[Path, typer.Argument(help="New folder; gets images/ and masks/.")],
    count: Annotated[int, typer.Option(min=1, help="Number of images.")] = 48,
    seed: Annotated[int, typer.Option(help="Other seeds give other images.")] = 0,
) -> None:
    """Make microscopy-like images of cells with exact masks, to try ushape on."""
    from ushape.api import example as module

    module.example(folder, count=count, seed=seed)


def main() -> None:
    """Exit codes: 0 done, 1 findings of `check`, 2 the user's mistake, 130 stopped by Ctrl-C."""
    try:
        app()
    except UshapeError as error:
        _print_error(error.message, error.hint)
    except OSError as error:
        if error.strerror is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _print_error(
            f"{place}{error.strerror}.", "Check the path, the free space and that you may write."
        )


def _print_error(message: str, hint: str | None) -> NoReturn:
    print(f"Error: {message}", file=sys.stderr)
    if hint:
        print(f"Hint: {hint}", file=sys.stderr)
    sys.exit(2)
