"""Serve a trained model over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ushape.api._named_runs import run_folders
from ushape.config import setting_list
from ushape.console import Console
from ushape.errors import ConfigError, require_package
from ushape.inference.predictor import Predictor
from ushape.interrupts import hint_after_interrupt
from ushape.planning.custom_code import allow_code
from ushape.planning.processor import keep_to_usable_cores, threads_restored

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
"""Modules of the extra `serve`."""

TOKEN_VARIABLE = "USHAPE_TOKEN"
"""Environment variable with the token, which other users cannot see, unlike arguments."""

MIN_TOKEN = 16
"""Smallest number of characters of a token."""


@threads_restored()
def serve(
    run: Path | str | Sequence[Path | str],
    *,
    port: int = 8000,
    host: str = "127.0.0.1",
    token: str | None = None,
    allow_host: Iterable[str] = (),
    max_megabytes: float = 1000.0,
    max_megapixels: float = 400.0,
    max_seconds: float = 60.0,
    max_queue: int = 64,
    device: str = "auto",
    backend: str = "torch",
    settings: Iterable[str] = (),
    recipe: str | None = None,
    quiet: bool = False,
) -> None:
    """Predict images that are sent over HTTP.

    Ctrl-C stops the server once all running requests have been answered.

    Args:
        run: Run or cross-validation folder; the probabilities of several runs are averaged.
        port: Port number; 0 chooses a free port.
        host: Address to listen on; any non-loopback address requires a token.
        token: Token that requests must contain (default: the environment variable USHAPE_TOKEN).
        allow_host: Additional host name to accept in the Host header, e.g. behind a proxy
            (repeatable).
        max_megabytes: Maximum size of a request in megabytes.
        max_megapixels: Maximum image size in megapixels for TIFF, NumPy and .nii; one eighth of it
            for other formats.
        max_seconds: Maximum time in seconds that a request waits for its result.
        max_queue: Maximum number of images being received, queued or processed.
        device: Device: auto, cpu, cuda or mps.
        backend: torch, compile, onnx, openvino, openvino-int8, or auto for the fastest.
        settings: Prediction setting as key=value, e.g. predict.tta=all_8 (repeatable).
        recipe: FILE.py:FUNCTION that defines the run's custom network or loss. The code runs only
            if you pass this option.
        quiet: Print nothing.

    Raises:
        MissingPackageError: if the packages of the extra `serve` are not installed.
        ConfigError: if the address cannot be used, a limit is not positive, or the token is missing
            or too short.
        RunError: if a folder is not a run.
        DataError: if the model reads images together with others.
        KeyboardInterrupt: if it is stopped with Ctrl-C.
    """
    for module in PACKAGES:
        require_package(module, "serve", "The server")
    from ushape.serving.limits import Limits
    from ushape.serving.safety import LOOPBACK_NAMES
    from ushape.serving.server import address_of, is_loopback, names_of, open_listener
    from ushape.serving.service import serve_predictor

    limits = Limits(
        megabytes=max_megabytes, megapixels=max_megapixels, wait_s=max_seconds, queue=max_queue
    )
    token = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
    if token and len(token) < MIN_TOKEN:
        raise ConfigError(
            f"The token has {len(token)} characters; it must have at least {MIN_TOKEN}.",
            code="token_too_short",
            hint='Generate one: python -c "import secrets; print(secrets.token_urlsafe())"',
        )
    allow_code(recipe)
    console, folders, chosen = Console(quiet=quiet), run_folders(run), setting_list(settings)
    with open_listener(host, port) as listener:
        is_local = is_loopback(listener)
        if not (is_local or token):
            raise ConfigError(
                f"Other computers can reach the address {host}, so requests must contain a token.",
                code="token_required",
                hint=f"Set {TOKEN_VARIABLE} or --token, or omit --host.",
            )
        keep_to_usable_cores()
        predictor = Predictor.open(folders, device, backend=backend, settings=chosen)
        for line in predictor.notes:
            console.say(line)
        extra = frozenset(name.lower() for name in allow_host)
        own = LOOPBACK_NAMES | names_of(listener, host)
        hosts = own | extra if is_local or extra else None
        console.say(
            f"Serving {', '.join(map(str, folders))} at {address_of(listener)} on "
            f"{predictor.device}. Ctrl-C stops it."
        )
        with hint_after_interrupt("To serve the model again, run the same command."):
            serve_predictor(predictor, folders, listener, limits, token=token, hosts=hosts)
