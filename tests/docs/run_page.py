"""Run the examples of a Markdown page as a reader would: python run_page.py PAGE.

Blocks of `bash` and `python` run in the order of the page, in the current folder. All Python blocks
of a page share their variables. These rules apply:

- `<!-- prepare ... -->` contains shell commands that create what the examples need;
- `<!-- not run: REASON -->` before a block excludes it;
- blocks in other languages, such as `text`, are never run.

A block with a title, such as `title="mine.py"`, is written to a file of that name instead.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"^<!-- prepare\n(?P<prepare>.*?)^-->"
    r"|^(?P<skipped><!-- not run: [^\n]+ -->\n)?"
    r"```(?P<language>\w*)( title='(?P<title>[\w.]+)')?\n(?P<code>.*?)^```$".replace("'", '"'),
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code in a page."""

    language: str
    code: str
    line: int
    is_run: bool
    title: str | None = None
    """Name of the file to write, if the block is the content of a file."""


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the code blocks of a page; the commands of `prepare` are blocks of bash."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["prepare"] is not None:
            yield Block("bash", found["prepare"], line, is_run=True)
        else:
            is_run = found["language"] in ("bash", "python") and not found["skipped"]
            yield Block(found["language"], found["code"], line, is_run, found["title"])


def run_page(page: Path) -> None:
    """Run all examples of a page; the first one that fails ends the process."""
    variables = {"__name__": "__main__"}
    for block in blocks_of(page):
        if not block.is_run:
            continue
        start = time.monotonic()
        print(f"{page.name}:{block.line}", flush=True)
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            # Empty lines in front let tracebacks show the line of the page.
            exec(compile("\n" * block.line + block.code, str(page), "exec"), variables)
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True)
        print(f"  {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
