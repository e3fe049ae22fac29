"""The studio as a process, and a person who draws on its page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours, label, regionprops
from skimage.morphology import skeletonize

from commands import command_environment

MARGIN_PX = 8
"""The page leaves this at the edges of an image that fits."""

Point = tuple[float, float]


class Studio:
    """`ushape studio DATA` on a port of its own."""

    def __init__(self, data: Path, port: int):
        self.data, self.port = data, port
        self.command = [sys.executable, "-m", "ushape", "studio", str(data), "--port", str(port)]
        self.command.append("--no-browser")
        self.output = data.parent / f"studio_{port}.txt"
        self.start()

    def start(self) -> None:
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                self.command, env=command_environment(), stdout=file, stderr=subprocess.STDOUT
            )
        wait_until(self.answers, 90)

    @property
    def url(self) -> str:
        """The printed address, with the token."""
        found = re.search(r"Studio: (\S+)", self.output.read_text())
        return found[1] if found else ""

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"The studio ended:\n{self.output.read_text()}")
        try:
            return bool(self.url) and bool(self.get("state"))
        except OSError:
            return False

    def get(self, path: str) -> Any:
        address, _, token = self.url.partition("?token=")
        headers = {"Authorization": f"Bearer {token}"}
        asked = urllib.request.Request(f"{address}api/{path}", headers=headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    def kill(self) -> None:
        """End the process without any warning."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def visited(browser, url: str, *, complaint: str | None = None, **options: Any):
    """Open the page; assert in the end that it asked only its own server and reported no error.

    Args:
        complaint: Text of console messages that are expected.
        options: Options of the browser's context, such as `viewport`.
    """
    options.setdefault("viewport", {"width": 1280, "height": 800})
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#image-list button[aria-current]", state="attached")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.unroute_all(behavior="ignoreErrors")
    context.close()
    unexpected = [text for text in complaints if not complaint or complaint not in text]
    assert not unexpected, unexpected
    foreign = [one for one in requests if not one.startswith((url.partition("?")[0], "data:"))]
    assert not foreign, foreign


def wait_until(holds, limit_s: float = 30) -> None:
    """Wait until a condition holds, and fail if it does not within the limit."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.1)


def open_image(page, name: str) -> None:
    """Open an image by its name in the list."""
    page.locator("#image-list button", has_text=name).evaluate("button => button.click()")
    page.locator("#image-list button[aria-current]", has_text=name).wait_for(state="attached")


def screen_points(page, size: tuple[int, int], points: Sequence[Point]) -> list[Point]:
    """Return the places on the screen of pixels (x, y) of an image (width, height) that fits."""
    box = page.locator("#frame").bounding_box()
    width, height = box["width"], box["height"]
    scale = min((width - MARGIN_PX) / size[0], (height - MARGIN_PX) / size[1], 40)
    return [
        (
            box["x"] + width / 2 + (x - size[0] / 2) * scale,
            box["y"] + height / 2 + (y - size[1] / 2) * scale,
        )
        for x, y in points
    ]


def draw(page, size: tuple[int, int], points: Sequence[Point]) -> None:
    """Draw with the mouse through pixels (x, y)."""
    first, *rest = screen_points(page, size, points)
    page.mouse.move(*first)
    page.mouse.down()
    for place in rest or [first]:
        page.mouse.move(*place)
    page.mouse.up()


def set_size(page, radius: int) -> None:
    page.locator("#size").fill(str(radius))


def wait_for_saving(page) -> None:
    page.locator("#saved", has_text="All saved").wait_for()


def cells_to_draw(mask: np.ndarray, count: int) -> list[tuple[list[Point], list[Point]]]:
    """Return, for some whole cells, lines (x, y) along the inside and the outside of their edge.

    Shapes:
        mask: (y, x) bool.
    """
    numbers = label(mask, connectivity=1)
    inner = numbers[8:-8, 8:-8]
    cut = set(np.unique(numbers)) - set(np.unique(inner))
    for edge in (numbers[:4], numbers[-4:], numbers[:, :4], numbers[:, -4:]):
        cut |= set(np.unique(edge))
    parts = [part for part in regionprops(numbers) if part.label not in cut]
    parts = sorted(parts, key=lambda part: -part.num_pixels)[:count]
    return [_edges_of(numbers == part.label) for part in parts]


def _edges_of(cell: np.ndarray) -> tuple[list[Point], list[Point]]:
    outside = ndimage.distance_transform_edt(~cell)
    inside = ndimage.distance_transform_edt(cell)
    lines = [find_contours(own, level) for own, level in ((-inside, -0.5), (outside, 1.5))]
    first, second = (max(own, key=len)[::2, ::-1] + 0.5 for own in lines)
    return [(float(x), float(y)) for x, y in first], [(float(x), float(y)) for x, y in second]


def strokes_inside(mask: np.ndarray, count: int, margin_px: int) -> list[list[Point]]:
    """Return strokes (x, y) along the middle of the widest areas, a margin away from their edges.

    Shapes:
        mask: (y, x) bool.
    """
    lines = skeletonize(ndimage.distance_transform_edt(mask) > margin_px)
    parts = sorted(regionprops(label(lines, connectivity=2)), key=lambda part: -part.num_pixels)
    return [_along(part.coords[:, ::-1] + 0.5) for part in parts[:count]]


def _along(pixels: np.ndarray, longest: int = 60) -> list[Point]:
    """Return a walk over neighboring pixels (N, 2), from the first one."""
    rest = [tuple(pixel) for pixel in pixels]
    walk = [rest.pop(0)]
    while rest and len(walk) < longest:
        distances = np.abs(np.array(rest) - walk[-1]).max(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] > 1.5:
            break
        walk.append(rest.pop(nearest))
    return [(float(x), float(y)) for x, y in walk[::3]]
