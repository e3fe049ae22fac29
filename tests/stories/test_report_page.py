"""The report page in a browser (Chromium, without network access)."""

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

from reports import make_case, make_report
from ushape.evaluation.volume_views import make_views
from ushape.formatting import TextTable
from ushape.labels import IGNORE, LabelSpace
from ushape.reports.gallery import make_gallery
from ushape.reports.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TISSUE = LabelSpace(values=(0, 1, 2), names=("background", "edge", "core"))


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
    card.locator(".threshold input").fill(str(percent))


def drawn(card, name):
    return card.locator(name).evaluate("canvas => canvas.toDataURL()")


def test_plot_mark_opens_the_pictures_of_its_case(page_file, opened):
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


def test_slider_updates_outlines_and_dice(page_file, opened):
    picture = picture_named(page_file, "cell_2")
    place = [one["id"] for one in data_of(page_file)["cases"]].index("cell_2")
    with opened(page_file, f"#case-{place}") as page:
        card = page.locator("#chosen")
        statement = card.locator(".statement")
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
        card.get_by_role("button", name="Reset").click()
        assert drawn(card, ".outlines") in seen
        expect(statement).to_contain_text(f"Dice {dice_in_picture(picture, 50):.3f} in")


def test_class_choice_updates_outlines_and_dice(opened, tmp_path):
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


def test_page_is_usable_with_the_keyboard(page_file, opened):
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
        expect(card.locator(".threshold input")).to_have_attribute("aria-valuetext", "0.49")
        page.locator("#worse").press("Enter")
        expect(page.locator("#chosen h3")).not_to_have_text(name)
        expect(page.locator("#worse")).to_be_focused()


def test_tables_sort_and_link_to_pictures(opened, tmp_path, cases):
    by_site = TextTable(
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
        dice = page.locator("#all-cases tbody tr td:nth-child(4)").all_text_contents()
        numbers = [float(text) for text in dice if text]
        assert numbers == sorted(numbers)
        assert dice[-1] == ""
        page.locator("#all-cases").get_by_role("link", name="cell_4").click()
        expect(page.locator("#chosen h3")).to_have_text("cell_4")


def test_page_with_a_hundred_large_pictures(opened, tmp_path):
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


def test_page_states_how_many_pictures_it_contains(opened, tmp_path, cases, monkeypatch):
    small = partial(make_gallery, max_bytes=40_000)
    monkeypatch.setattr("ushape.reports.report.make_gallery", small)
    write_report(tmp_path / "report.html", make_report(cases))
    shown = len(data_of(tmp_path / "report.html")["pictures"])
    assert 3 <= shown < len(cases)
    with opened(tmp_path / "report.html") as page:
        expect(page.locator("#pictures > .note")).to_contain_text(f"{shown} of {len(cases)} images")
        page.locator("#case-choice").select_option(label="empty")
        expect(page.locator("#chosen .facts")).to_contain_text("no picture of this image")
        expect(page.locator("#chosen canvas").first).to_be_hidden()


@pytest.mark.parametrize("width", [500, 1200])
def test_tables_keep_all_columns_and_their_first_one_in_view(opened, tmp_path, width):
    names = ("background", *(f"tissue of kind {n}" for n in range(8)))
    space = LabelSpace(values=tuple(range(9)), names=names)
    made = [make_case(f"a_rather_long_name_of_a_case_{n}", 48, n, space) for n in range(3)]
    write_report(tmp_path / "report.html", make_report(made))
    with opened(tmp_path / "report.html", viewport={"width": width, "height": 900}) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        for table in page.locator(".scroll").all():
            hidden = table.evaluate(
                """region => {
                    region.scrollLeft = region.scrollWidth;
                    const frame = region.getBoundingClientRect();
                    const rows = [...region.querySelectorAll("tr")].map((row) => [...row.cells]);
                    const inside = (cell) => {
                        const box = cell.getBoundingClientRect();
                        return box.left >= frame.left - 1 && box.right <= frame.right + 1;
                    };
                    return rows.filter((row) => !inside(row[0]) || !inside(row.at(-1)))
                        .filter((row) => getComputedStyle(row.at(-1)).display !== "none").length;
                }"""
            )
            assert hidden == 0


def test_new_plots_have_names_and_marks(opened, page_file):
    with opened(page_file) as page:
        for plot in ("object-precision", "object-counts", "loss", "validation-loss", "validation"):
            svg = page.locator(f"#{plot} svg")
            expect(svg).to_have_count(1)
            assert svg.get_attribute("aria-label")
        expect(page.locator("#threshold-curves svg")).to_have_count(1)
        mark = page.locator('#object-counts a[aria-label^="cell_3:"]')
        expect(mark).to_have_attribute("aria-label", "cell_3: 8 annotated, 6 predicted")
        mark.click()
        expect(page.locator("#chosen h3")).to_have_text("cell_3")


def test_slices_of_a_volume_are_scrolled_with_the_keyboard(opened, tmp_path):
    made = make_case("volume", 32)
    truth = np.stack([0 * made.truth, made.truth, made.truth])
    image = np.random.default_rng(0).integers(0, 255, (1, *truth.shape), np.uint8)
    picture = replace(made.picture, views=make_views(image, truth, truth, (2.0, 1.0, 1.0)))
    write_report(tmp_path / "report.html", make_report([replace(made, picture=picture)]))
    with opened(tmp_path / "report.html") as page:
        card = page.locator(".card:not(.chosen)").first
        expect(card.locator(".planes img")).to_have_count(3)
        expect(card.locator(".slice-number")).to_have_text("2 of 3")
        before = card.locator(".slice").get_attribute("src")
        card.locator(".scroll-slices").focus()
        page.keyboard.press("ArrowRight")
        expect(card.locator(".slice-number")).to_have_text("3 of 3")
        assert card.locator(".slice").get_attribute("src") != before
        expect(card.locator(".slice")).to_have_attribute("alt", re.compile("volume: slice 3 of 3"))


def test_images_have_no_slices(opened, page_file):
    with opened(page_file) as page:
        for volume in page.locator(".card:not(.chosen) .volume").all():
            expect(volume).to_be_hidden()
