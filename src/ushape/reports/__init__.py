"""Self-contained HTML pages with embedded pictures and plots."""

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

from ushape.formatting import count_text, one_line, printable
from ushape.io.files import write_bytes

FOLDER = files("ushape.reports") / "templates"

PICTURE_PX = 512
"""Default for the longest side of an embedded picture."""

BLUE, ORANGE, GRAY = "#2f86c9", "#d9790b", "#808890"
"""Plot colors that are readable on white and on dark gray."""


def write_page(
    path: Path,
    template: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    **values: object,
) -> None:
    """Render a template and write the page atomically.

    The content security policy of the page allows no request and no script except `scripts`.

    Args:
        styles: CSS files of the templates folder, in addition to base.css.
        scripts: JavaScript files of the templates folder, concatenated in this order.
        values: Variables of the template; `title` is required.
    """
    program = _join_scripts(scripts)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ushape", "reports/templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
    )
    environment.filters["count_text"] = count_text
    page = environment.get_template(template).render(
        style=Markup("\n".join(map(_read, ("base.css", *styles)))),
        program=Markup(program),
        policy=_policy(program),
        **values,
    )
    write_bytes(path, page.encode(errors="backslashreplace"))


def printable_values(value: Any) -> Any:
    """Return nested values with the texts made printable, as JavaScript displays them."""
    if isinstance(value, dict):
        return {key: printable_values(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(own) for own in value]
    return one_line(value) if isinstance(value, str) else value


def _finalize(value: Any) -> Any:
    """Make the texts of a page printable; markup, such as plots, contains none of the user's."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value) if is_text else value


def _read(name: str) -> str:
    return FOLDER.joinpath(name).read_text(encoding="utf-8")


def _join_scripts(names: Sequence[str]) -> str:
    """Concatenate scripts in one function, so that their names are not global."""
    parts = "\n".join(map(_read, names))
    return f'(() => {{\n"use strict";\n{parts}\n}})();' if names else ""


def _policy(program: str) -> str:
    """Return a content security policy that allows only this script, by its checksum."""
    checksum = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{checksum}'"
    )


def adapt(axes: Any) -> None:
    """Style Matplotlib axes with colors that are readable on white and on dark gray."""
    axes.grid(color=GRAY, alpha=0.25)
    axes.tick_params(colors=GRAY)
    for spine in axes.spines.values():
        spine.set_color(GRAY)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(GRAY)


def as_svg(figure: Figure) -> str:
    """Return a plot as an SVG element."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def as_data(picture: np.ndarray, longest_px: int = PICTURE_PX, *, kind: str = "png") -> str:
    """Return an image as a data URI.

    Args:
        longest_px: Longest side in pixels; larger images are reduced.
        kind: "png" (lossless) or "webp" (lossy, about a tenth of the size).

    Shapes:
        picture: (H, W, 3) uint8.
    """
    image = Image.fromarray(picture)
    image.thumbnail((longest_px, longest_px))
    content = io.BytesIO()
    image.save(content, format=kind.upper(), **({"optimize": True} if kind == "png" else {}))
    return f"data:image/{kind};base64," + base64.b64encode(content.getvalue()).decode()
