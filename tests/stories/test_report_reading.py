"""The report page on all screens, in print, without JavaScript and with hostile content."""

import re
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect

from reports import CELL, make_case, make_report
from ushape.evaluation.scores import score_case
from ushape.evaluation.summary import summarize
from ushape.formatting import TextTable
from ushape.reports.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = '</script><img src=x onerror="window.hacked = 1"><b>'


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_page_loads_nothing_and_fits_the_screen(page_file, opened, scheme, width):
    viewport = {"width": width, "height": 800}
    with opened(page_file, color_scheme=scheme, viewport=viewport) as page:
        expect(page.locator("#dots a")).to_have_count(11)
        expect(page.locator("#by-size a")).to_have_count(10)
        expect(page.locator("#loss svg, #validation svg, .reliability svg")).to_have_count(3)
        expect(page.locator(".card canvas:visible")).to_have_count(8)
        assert (colors_of(page, "body")[1] == "rgb(255, 255, 255)") == (scheme == "light")


def test_hostile_names_are_escaped(opened, tmp_path):
    space = replace(CELL, names=("background", HOSTILE))
    case = make_case(HOSTILE, 64, 1, space, group=HOSTILE)
    table = TextTable(title=HOSTILE, columns=[HOSTILE], rows=[[HOSTILE]])
    texts = ("split_lines", "leak_lines", "plan_lines", "reproduce_lines")
    lines = {name: [HOSTILE] for name in texts}
    report = make_report([case], title=HOSTILE, breakdowns=[table], **lines)
    write_report(tmp_path / "report.html", report)
    with opened(tmp_path / "report.html", "#case-0") as page:
        expect(page.locator("#chosen h3")).to_have_text(HOSTILE)
        expect(page.locator("#chosen .statement")).to_contain_text("Threshold")
        page.locator("#dots a").hover()
        expect(page.locator("#tooltip")).to_contain_text(HOSTILE)
        expect(page).to_have_title(HOSTILE)
        assert page.evaluate("window.hacked") is None
        expect(page.locator('img[src="x"]')).to_have_count(0)


def test_injected_script_is_blocked(opened, tmp_path, page_file):
    text = page_file.read_text().replace("<main>", "<main><script>window.hacked = 1</script>")
    (tmp_path / "report.html").write_text(text)
    with opened(tmp_path / "report.html", complaint="Content Security Policy") as page:
        assert page.evaluate("window.hacked") is None
        expect(page.locator("#dots a")).to_have_count(11)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_print_layout(page_file, opened, scheme):
    with opened(page_file, "#case-1", color_scheme=scheme) as page:
        expect(page.locator("#chosen .statement")).to_contain_text("Threshold")
        page.emulate_media(media="print")
        expect(page.locator("input[type=range]").first).to_be_hidden()
        expect(page.locator("#chosen .outlines")).to_be_visible()
        assert colors_of(page, "body") == ("rgb(0, 0, 0)", "rgb(255, 255, 255)")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() == page.locator("details").count()
        assert page.pdf().startswith(b"%PDF")


def test_page_without_javascript_has_values_and_pictures(page_file, opened):
    with opened(page_file, java_script_enabled=False) as page:
        expect(page.locator(".verdict")).to_contain_text("The mean Dice on")
        expect(page.locator("noscript p").first).to_contain_text("require JavaScript")
        expect(page.locator(".still img")).to_have_count(4)
        expect(page.locator("#all-cases td").first).to_have_text("missed")
        expect(page.locator("#chosen")).to_be_hidden()


def test_report_of_one_empty_case(opened, tmp_path):
    empty = score_case("only", "g", np.zeros((8, 8), int), np.zeros((8, 8), int), CELL)
    summary = summarize(empty, noun="images")
    write_report(
        tmp_path / "report.html",
        make_report([], scores=empty, summary=summary, epochs=[], breakdowns=[]),
    )
    with opened(tmp_path / "report.html", "#case-0") as page:
        expect(page.locator("#all-cases td").first).to_have_text("only")
        expect(page.locator("#dots svg")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast(page_file, opened, scheme):
    """WCAG 2 AA: 4.5 to 1 for text."""
    with opened(page_file, color_scheme=scheme) as page:
        grounds = [colors_of(page, name)[1] for name in ("body", "#chosen")]
        for name in (".verdict", ".note", "nav a", "summary", "h1", "td a", ".statement"):
            ink = colors_of(page, name)[0]
            assert min(contrast(ink, ground) for ground in grounds) >= 4.5, name


def colors_of(page, selector):
    """Of text and ground."""
    style = "one => [getComputedStyle(one).color, getComputedStyle(one).backgroundColor]"
    return tuple(page.locator(selector).first.evaluate(style))


def contrast(one, other):
    """Of two colors as CSS writes them, 1 to 21."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(color):
    shares = np.array([int(text) for text in re.findall(r"\d+", color)[:3]]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
