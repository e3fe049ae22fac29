"""The page of the studio: one HTML document without requests except to the server's interface."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from string import Template

FOLDER = files("ushape.studio.page")

MODULES = (
    "dom.js",
    "geometry.js",
    "state.js",
    "edits.js",
    "paint.js",
    "tiles.js",
    "viewer.js",
    "gestures.js",
    "tools.js",
    "images.js",
    "layers.js",
    "curves.js",
    "classes.js",
    "training.js",
    "steps.js",
    "volume.js",
    "keyboard.js",
    "main.js",
)
"""Scripts in the order of imports. A module imports only names of modules before it."""

IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function|class|const)", re.MULTILINE)


@cache
def render_page() -> str:
    """Return the document with its styles and scripts inside.

    The scripts are ES modules that share one scope here, so names at their top level are unique.
    The content security policy allows only this style and this script, by their checksums, and
    requests only to the server that sent the page.
    """
    base = files("ushape") / "reports" / "templates" / "base.css"
    style = f"\n{base.read_text(encoding='utf-8')}\n{_read('style.css')}"
    program = "\n" + "\n".join(_without_imports(_read(name)) for name in MODULES)
    return Template(_read("index.html")).substitute(
        style=style, program=program, policy=_policy(style, program)
    )


def render_refusal() -> str:
    """Return the document that a browser without the token gets."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>ushape studio</title>'
        "<h1>This page needs the address with the token</h1>"
        "<p>Open the address that <code>ushape studio</code> printed in the terminal, with "
        "everything after <code>?token=</code>. The token prevents access by other users of this "
        "computer.</p>"
    )


def _read(name: str) -> str:
    return FOLDER.joinpath(name).read_text(encoding="utf-8")


def _without_imports(module: str) -> str:
    return EXPORT.sub("", IMPORT.sub("", module))


def _policy(style: str, program: str) -> str:
    """Return a content security policy without 'unsafe-inline'."""
    return (
        "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
        f"form-action 'none'; style-src '{_checksum(style)}'; script-src '{_checksum(program)}'"
    )


def _checksum(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
