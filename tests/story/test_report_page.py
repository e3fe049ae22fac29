"""The report in a browser, as a reader has it: Debian's Chromium, without a network."""

import base64
import io
import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from reports import CELL, make_case, make_report
from ushape.evaluation.gallery import make_gallery
from ushape.evaluation.report import Breakdown, write_report
from ushape.evaluation.score import score_case
from ushape.evaluation.summary import summarise
from ushape.labels import IGNORE, LabelSpace

TISSUE = LabelSpace(values=(0, 1, 2), names=("background", "edge", "core"))
HOSTILE = '</script><img src=x onerror="window.hacked = 1"><b>'


@pytest.fixture(scope="module")
def cases():
    """Cells of four dishes; some pixels are left open, one case is missed and two are empty."""
    made = [make_case(f"cell_{n}", 64, n, group=f"dish{n % 4}", noise=n / 20) for n in range(9)]
    made[2].picture.truth[:8] = IGNORE
    truth = np.zeros((64, 64), np.uint8)
    truth[:5, :5] = 1
    for name, wanted, found in (
        ("missed", truth, 0 * truth),
        ("empty", 0 * truth, 0 * truth),
        ("alarm", 0 * truth, truth),
    ):
        picture = replace(made[0].picture, case=name, group="dish9", truth=wanted)
        scores = score_case(name, "dish9", found, wanted, CELL)
        made.append(replace(made[0], scores=scores, picture=picture))
    return made


@pytest.fixture(scope="module")
def page_file(cases, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, make_report(cases))
    return path


def data_of(path):
    """What the page's program works on."""
    return json.loads(re.search(r'id="page-data">(.*?)</script>', path.read_text())[1])


def read_plane(uri):
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return np.asarray(image.convert("RGB"))[..., 0]


def dice_in_picture(picture, percent, place=0):
    """As the page shall state it, from the planes that are in the page."""
    shown, truth = picture["classes"][place], read_plane(picture["truth"])
    counted = truth != IGNORE
    wanted = np.isin(truth, shown["members"]) & counted
    found = (read_plane(shown["percent"]) >= percent) & counted
    return 2 * (wanted & found).sum() / (wanted.sum() + found.sum())


def picture_named(path, name):
    return next(one for one in data_of(path)["pictures"] if one["case"] == name)


def dot(page, name, plot="dots"):
    return page.locator(f'#{plot} a[aria-label^="{name}:"]')


def slide(card, percent):
    card.locator("input[type=range]").fill(str(percent))


def drawn(card, name):
    return card.locator(name).evaluate("canvas => canvas.toDataURL()")


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_loads_alone_and_fits_any_screen(page_file, opened, scheme, width):
    viewport = {"width": width, "height": 800}
    with opened(page_file, color_scheme=scheme, viewport=viewport) as page:
        expect(page.locator("#dots a")).to_have_count(11)
        expect(page.locator("#by-size a")).to_have_count(10)
        expect(page.locator("#loss svg, #validation svg, .reliability svg")).to_have_count(3)
        expect(page.locator(".card canvas:visible")).to_have_count(6)
        assert fits(page)
        assert (colours_of(page, "body")[1] == "rgb(255, 255, 255)") == (scheme == "light")


def test_a_click_on_a_dot_opens_its_pictures(page_file, opened):
    with opened(page_file) as page:
        chosen = page.locator("#chosen")
        expect(chosen.locator("canvas").first).to_be_hidden()
        dot(page, "cell_3").hover()
        expect(page.locator("#tooltip")).to_contain_text("cell_3: Dice 0.")
        dot(page, "cell_3").click()
        expect(chosen.locator("h3")).to_have_text("cell_3")
        expect(chosen.locator(".statement")).to_contain_text("Threshold 0.50: Dice 0.")
        expect(chosen).to_be_in_viewport()
        before = drawn(chosen, ".outlines")
        dot(page, "missed", "by-size").click()
        expect(chosen.locator(".facts")).to_contain_text("missed, Dice 0.000")
        page.wait_for_function(
            "before => chosen.querySelector('canvas').toDataURL() != before", arg=before
        )
        page.go_back()
        expect(chosen.locator("h3")).to_have_text("cell_3")


def test_the_slider_moves_the_outline_and_tells_the_dice(page_file, opened):
    picture = picture_named(page_file, "cell_2")
    place = [one["id"] for one in data_of(page_file)["cases"]].index("cell_2")
    with opened(page_file, f"#case-{place}") as page:
        card = page.locator("#chosen")
        statement = card.locator("output")
        expect(statement).to_have_attribute("aria-live", "polite")
        expect(statement).to_contain_text("Threshold 0.50")
        seen = {drawn(card, ".outlines"), drawn(card, ".errors")}
        for percent in (20, 65, 80):
            slide(card, percent)
            dice = dice_in_picture(picture, percent)
            expect(statement).to_contain_text(f"Threshold {percent / 100:.2f}: Dice {dice:.3f} in")
            label = card.locator(".outlines").get_attribute("aria-label")
            assert f"Dice {dice:.3f}" in label
            seen |= {drawn(card, ".outlines"), drawn(card, ".errors")}
        assert len(seen) == 8
        card.get_by_role("button", name="As scored").click()
        assert drawn(card, ".outlines") in seen
        expect(statement).to_contain_text(f"Dice {dice_in_picture(picture, 50):.3f} in")


def test_each_of_several_classes_has_its_outline(opened, tmp_path):
    case = make_case("both", 64, 1, TISSUE, noise=0.6)
    other = make_case("other", 64, 2, TISSUE, noise=0.3)
    write_report(tmp_path / "report.html", make_report([case, other]))
    picture = picture_named(tmp_path / "report.html", "both")
    with opened(tmp_path / "report.html", viewport={"width": 320, "height": 700}) as page:
        page.locator("#case-choice").select_option(label="both")
        card = page.locator("#chosen")
        expect(card.locator(".facts")).to_contain_text("edge Dice")
        for place, name in enumerate(("edge", "core")):
            card.locator(".class-choice select").select_option(label=name)
            slide(card, 30)
            dice = dice_in_picture(picture, 30, place)
            expect(card.locator(".statement")).to_contain_text(f"Dice {dice:.3f} in")
        expect(page.locator("#dots a")).to_have_count(4)
        assert fits(page)


def test_with_the_keyboard_alone(page_file, opened):
    with opened(page_file) as page:
        first = page.locator('#dots a[tabindex="0"]')
        expect(first).to_have_count(1)
        first.focus()
        expect(page.locator("#tooltip")).to_contain_text("missed: missed, Dice 0.000")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        name = page.evaluate("document.activeElement.getAttribute('aria-label')").split(":")[0]
        page.keyboard.press("Enter")
        expect(page.locator("#chosen h3")).to_have_text(name)
        expect(page.locator("#chosen h3")).to_be_focused()
        card = page.locator("#chosen")
        expect(card.locator(".statement")).to_contain_text("Threshold 0.50")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowLeft")
        expect(card.locator(".statement")).to_contain_text("Threshold 0.49")
        expect(card.locator("input")).to_have_attribute("aria-valuetext", "0.49")
        page.locator("#worse").press("Enter")
        expect(page.locator("#chosen h3")).not_to_have_text(name)
        expect(page.locator("#worse")).to_be_focused()


def test_tables_sort_and_lead_to_the_pictures(opened, tmp_path, cases):
    by_site = Breakdown(
        title="By site", columns=["site", "n"], rows=[["b", "9"], ["", ""], ["a", "10"]]
    )
    write_report(tmp_path / "report.html", make_report(cases, breakdowns=[by_site]))
    with opened(tmp_path / "report.html") as page:
        table = page.locator("#breakdowns table")
        for button, order in (
            ("n", ["b", "a", ""]),
            ("n", ["a", "b", ""]),
            ("site", ["a", "b", ""]),
        ):
            table.get_by_role("button", name=button, exact=True).click()
            assert table.locator("tbody td:first-child").all_text_contents() == order
        expect(table.locator("th").first).to_have_attribute("aria-sort", "ascending")
        dice = page.locator("#all-cases tbody tr td:nth-child(5)").all_text_contents()
        numbers = [float(text) for text in dice if text]
        assert numbers == sorted(numbers)
        assert dice[-1] == ""
        page.locator("#all-cases").get_by_role("link", name="cell_4").click()
        expect(page.locator("#chosen h3")).to_have_text("cell_4")


def test_names_can_do_nothing(opened, tmp_path):
    space = replace(CELL, names=("background", HOSTILE))
    case = make_case(HOSTILE, 64, 1, space, group=HOSTILE)
    table = Breakdown(title=HOSTILE, columns=[HOSTILE], rows=[[HOSTILE]])
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


def test_a_script_that_somehow_came_in_does_not_run(opened, tmp_path, page_file):
    text = page_file.read_text().replace("<main>", "<main><script>window.hacked = 1</script>")
    (tmp_path / "report.html").write_text(text)
    with opened(tmp_path / "report.html", complaint="Content Security Policy") as page:
        assert page.evaluate("window.hacked") is None
        expect(page.locator("#dots a")).to_have_count(11)


def test_a_hundred_cases_of_512_px(opened, tmp_path):
    made = [make_case(f"a{n}", 512, n, group=f"g{n}", noise=0.4) for n in range(4)]
    many = [
        replace(
            one,
            scores=[replace(own, case=f"case_{n}") for own in one.scores],
            picture=replace(one.picture, case=f"case_{n}"),
        )
        for n in range(100)
        for one in [made[n % 4]]
    ]
    write_report(tmp_path / "report.html", make_report(many))
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    with opened(tmp_path / "report.html") as page:
        expect(page.locator("#dots a")).to_have_count(100)
        assert len(data_of(tmp_path / "report.html")["pictures"]) == 100
        expect(page.locator("#all-cases summary")).to_have_text("100 rows")
        dot(page, "case_7").click(force=True)
        expect(page.locator("#chosen .statement")).to_contain_text("Dice 0.")


def test_says_how_many_pictures_it_shows(opened, tmp_path, cases, monkeypatch):
    small = partial(make_gallery, most_bytes=40_000)
    monkeypatch.setattr("ushape.evaluation.report.make_gallery", small)
    write_report(tmp_path / "report.html", make_report(cases))
    shown = len(data_of(tmp_path / "report.html")["pictures"])
    assert 3 <= shown < len(cases)
    with opened(tmp_path / "report.html") as page:
        expect(page.locator("#pictures > .note")).to_contain_text(f"{shown} of {len(cases)} cases")
        page.locator("#case-choice").select_option(label="empty")
        expect(page.locator("#chosen .facts")).to_contain_text("not in this page")
        expect(page.locator("#chosen canvas").first).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_paper(page_file, opened, scheme):
    with opened(page_file, "#case-1", color_scheme=scheme) as page:
        expect(page.locator("#chosen .statement")).to_contain_text("Threshold")
        page.emulate_media(media="print")
        expect(page.locator("input[type=range]").first).to_be_hidden()
        expect(page.locator("#chosen .outlines")).to_be_visible()
        assert colours_of(page, "body") == ("rgb(0, 0, 0)", "rgb(255, 255, 255)")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() == page.locator("details").count()
        assert page.pdf().startswith(b"%PDF")


def test_without_javascript_there_are_numbers_and_pictures(page_file, opened):
    with opened(page_file, java_script_enabled=False) as page:
        expect(page.locator(".verdict")).to_contain_text("mean Dice is")
        expect(page.locator("noscript p").first).to_contain_text("need JavaScript")
        expect(page.locator(".still img")).to_have_count(3)
        expect(page.locator("#all-cases td").first).to_have_text("missed")
        expect(page.locator("#chosen")).to_be_hidden()


def test_a_report_of_little_is_whole(opened, tmp_path):
    empty = score_case("only", "g", np.zeros((8, 8), int), np.zeros((8, 8), int), CELL)
    summary = summarise(empty, noun="images")
    write_report(
        tmp_path / "report.html",
        make_report([], scores=empty, summary=summary, epochs=[], breakdowns=[]),
    )
    with opened(tmp_path / "report.html", "#case-0") as page:
        expect(page.locator("#all-cases td").first).to_have_text("only")
        expect(page.locator("#dots svg")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page(page_file, opened, scheme):
    """WCAG 2 AA: 4.5 to 1 for text."""
    with opened(page_file, color_scheme=scheme) as page:
        grounds = [colours_of(page, name)[1] for name in ("body", "#chosen")]
        for name in (".verdict", ".note", "nav a", "summary", "h1", "td a", ".statement"):
            ink = colours_of(page, name)[0]
            assert min(contrast(ink, ground) for ground in grounds) >= 4.5, name


def colours_of(page, selector):
    """Of text and ground."""
    style = "one => [getComputedStyle(one).color, getComputedStyle(one).backgroundColor]"
    return tuple(page.locator(selector).first.evaluate(style))


def contrast(one, other):
    """Of two colours as CSS writes them, 1 to 21."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    shares = np.array([int(text) for text in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
