"""Self-contained HTML pages: one look, pictures and plots inside the file."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from ushape.io.files import write_bytes

FOLDER = files("ushape.reports") / "templates"

PICTURE_PX = 512
"""Longest side of a picture."""

BLUE, ORANGE, GRAY = "#2f86c9", "#d9790b", "#808890"
"""Readable on white and on dark gray."""


def write_page(
    path: Path,
    template: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    **values: object,
) -> None:
    """Fills a template of this folder; whole or not at all.

    The page may load nothing, and runs no script but the ones named here.

    Args:
        styles: Files of this folder, beside the common base.css.
        scripts: Files of this folder that make one program, in this order.
        values: What stands in the template; `title` always.
    """
    program = _join_scripts(scripts)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ushape", "reports/templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template(template).render(
        style=Markup("\n".join(map(_read, ("base.css", *styles)))),
        program=Markup(program),
        policy=_policy(program),
        **values,
    )
    write_bytes(path, page.encode())


def _read(name: str) -> str:
    return FOLDER.joinpath(name).read_text(encoding="utf-8")


def _join_scripts(names: Sequence[str]) -> str:
    """One function that calls itself: its names are nobody else's."""
    parts = "\n".join(map(_read, names))
    return f'(() => {{\n"use strict";\n{parts}\n}})();' if names else ""


def _policy(program: str) -> str:
    """Content security policy, by the checksum of the only script."""
    checksum = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{checksum}'"
    )


def adapt(axes: Any) -> None:
    """Colors that can be read on white and on dark gray."""
    axes.grid(color=GRAY, alpha=0.25)
    axes.tick_params(colors=GRAY)
    for spine in axes.spines.values():
        spine.set_color(GRAY)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(GRAY)


def as_svg(figure: Figure) -> str:
    """The plot as an element for the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def as_data(picture: np.ndarray, longest_px: int = PICTURE_PX, *, kind: str = "png") -> str:
    """A data URI of (H, W, 3) uint8, made smaller where it is larger.

    Args:
        kind: png, pixel by pixel; or webp, a tenth of the size.
    """
    image = Image.fromarray(picture)
    image.thumbnail((longest_px, longest_px))
    content = io.BytesIO()
    image.save(content, format=kind.upper(), **({"optimize": True} if kind == "png" else {}))
    return f"data:image/{kind};base64," + base64.b64encode(content.getvalue()).decode()
