"""What a reader does on the pages: keyboard, search, dark mode, no scripts; and accessibility."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from tests.site.browsing import PAGES, WIDTHS
from tests.site.faults import faults_of_colour, faults_of_structure

pytestmark = pytest.mark.site

# Notes each element that gets the focus: its name, where it is, and whether it and its mark show.
NOTE_FOCUS = """() => {
  window.stops = [];
  addEventListener("focusin", ({ target: element }) => {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    const name = element.getAttribute("aria-label") || element.title || element.textContent || "";
    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    window.stops.push({
      tag: element.tagName,
      name: name.trim(),
      inside: ["article", "#pst-primary-sidebar"].filter((selector) => element.closest(selector)),
      seen: box.width > 0 && box.height > 0,
      marked: outlined || style.boxShadow !== "none",
    });
  });
}"""
# Pages with each kind of content: prose, formulae, a chapter's code and outputs, tables.
KINDS = ["intro", "notation", "activation-scaling/one-prompt", "scorecard"]


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, tab, address) -> Page:
    """Every page, dark and on a laptop, opened once for all that look at it without a click."""
    dark = tab("page")
    dark.open(address(request.param, "file"), WIDTHS[1], "dark")
    return dark.page


def stops_of(page: Page) -> list[dict]:
    """What the Tab key reaches, in order."""
    page.evaluate(NOTE_FOCUS)
    for _ in range(60):  # held down, which takes less time than one press after another
        page.keyboard.down("Tab")
    page.keyboard.up("Tab")
    return page.evaluate("window.stops")


def test_tab_reaches_navigation_search_and_text_and_shows_where_it_is(page: Page) -> None:
    stops = stops_of(page)
    assert "Skip to main content" in stops[0]["name"]
    assert any("earch" in stop["name"] for stop in stops)
    assert any("#pst-primary-sidebar" in stop["inside"] and stop["tag"] == "A" for stop in stops)
    assert any("article" in stop["inside"] for stop in stops)
    assert not [stop for stop in stops if not (stop["seen"] and stop["marked"])]


@pytest.mark.parametrize("name", KINDS)
def test_the_focus_shows_in_the_light_too(opened, name: str) -> None:
    page, _ = opened(name, color_scheme="light")
    stops = stops_of(page)
    assert len(stops) > 20 and not [stop for stop in stops if not (stop["seen"] and stop["marked"])]


def test_enter_on_the_first_stop_skips_to_the_text(opened) -> None:
    page, _ = opened(PAGES[0])
    for key in ("Tab", "Enter", "Tab"):
        page.keyboard.press(key)
    assert page.evaluate("() => !!document.activeElement.closest('main')")


def tab_to(page, condition: str) -> None:
    """Press Tab until the element with the focus fulfils a JavaScript condition."""
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate(f"() => document.activeElement.{condition}"):
            return
    pytest.fail(f"no stop with {condition}")


def test_the_menu_opens_by_keyboard_on_a_narrow_screen(opened) -> None:
    page, _ = opened(PAGES[0], WIDTHS[0])
    tab_to(page, "classList.contains('primary-toggle')")
    page.keyboard.press("Enter")
    link = page.locator("dialog[open] a.reference.internal", has_text="Notation")
    link.wait_for(state="visible", timeout=3000)
    tab_to(page, "textContent.includes('Notation')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/notation.html*", timeout=5000)


def test_search_finds_a_page_without_a_server(opened) -> None:
    page, seen = opened(PAGES[0])
    page.keyboard.press("Control+k")
    page.keyboard.type("Kullback")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=Kullback*", timeout=5000)
    page.locator("#search-results a", has_text="Notation").first.wait_for(timeout=5000)
    excerpt = page.locator("#search-results li", has_text="Notation").locator("p.context")
    excerpt.wait_for(timeout=5000)
    assert "Kullback" in excerpt.text_content()
    box = page.locator(".bd-search-container input")
    icon = page.locator(".bd-search-container .fa-magnifying-glass").bounding_box()
    indent = box.evaluate("box => parseFloat(getComputedStyle(box).paddingLeft)")
    assert box.bounding_box()["x"] + indent >= icon["x"] + icon["width"]
    assert not seen.outside


@pytest.mark.parametrize(("scheme", "ground"), [("dark", 18), ("light", 255)])
def test_figures_lie_on_the_page_s_own_ground(opened, scheme: str, ground: int) -> None:
    page, _ = opened("activation-scaling/one-prompt", color_scheme=scheme)
    assert page.evaluate("() => document.documentElement.dataset.theme") == scheme
    picture = page.locator("article figure img:not(.drawing):visible").first
    shot = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("L"), dtype=int)
    corners = [shot[y, x] for y in (1, -2) for x in (1, -2)]
    assert corners == pytest.approx([ground] * 4, abs=3)
    assert np.abs(shot - ground).max() > 150  # what is drawn can be seen


def test_the_side_bar_shows_the_page_that_next_leads_to(opened) -> None:
    page, _ = opened("observable-propagation/paths")
    page.evaluate("document.querySelector('.bd-sidebar-primary').scrollTop = 0")
    page.locator("a.right-next").click()
    page.wait_for_url("**/bias.html*")
    page.wait_for_load_state()
    entry = page.locator(".bd-sidebar-primary a.current").last.bounding_box()
    assert 0 <= entry["y"] and entry["y"] + entry["height"] <= page.viewport_size["height"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_scorecard_fits_and_nothing_that_a_cell_printed_is_cut(opened, width: int) -> None:
    cut = "all => all.filter(each => each.scrollWidth > each.clientWidth + 1).length"
    page, _ = opened("scorecard", width)
    assert page.locator("article .scrolls").evaluate_all(cut) == 0
    assert page.locator("table.scorecard .verdict").count() >= 36
    page, _ = opened("activation-scaling/one-prompt", width)
    printed = page.locator("article .cell_output pre")
    assert printed.count() > 5 and printed.evaluate_all(cut) == 0


@pytest.mark.parametrize("page", [page for page in PAGES if "/" in page], indirect=True)
def test_no_code_and_no_table_of_a_chapter_is_cut_on_a_laptop(page: Page) -> None:
    cut = "all => all.filter(each => each.scrollWidth > each.clientWidth + 1).length"
    frames = page.locator("article :is(pre, .output, .text_html, .scrolls):visible")
    assert frames.count() > 5 and frames.evaluate_all(cut) == 0


def test_no_table_is_cut_once_a_narrow_window_has_been_made_wide(opened) -> None:
    page, seen = opened("observable-propagation/bias-search", WIDTHS[0])
    page.set_viewport_size({"width": WIDTHS[1], "height": 800})
    frames = "article :is(.output, .text_html, .scrolls)"
    page.wait_for_function(
        """frames => [...document.querySelectorAll(frames)].every(
          each => each.scrollWidth <= each.clientWidth + 1
        )""",
        arg=frames,
        timeout=5000,
    )
    assert page.locator(frames).count() > 5 and not seen.console


def test_a_heading_is_no_heavier_than_the_one_above_it(opened) -> None:
    page, _ = opened("reference")
    look = "element => [getComputedStyle(element).fontWeight, getComputedStyle(element).fontSize]"
    looks = [page.locator(f"article h{level}").first.evaluate(look) for level in (1, 2, 3)]
    weights = [int(weight) for weight, _ in looks]
    sizes = [float(size.removesuffix("px")) for _, size in looks]
    assert weights == sorted(weights, reverse=True) and sizes == sorted(sizes, reverse=True)


def test_a_dark_page_prints_dark_on_light_and_its_tables_fit_the_paper(opened) -> None:
    page, _ = opened("observable-propagation/pronouns", 718, color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    right = "tables => tables.map(table => table.getBoundingClientRect().right)"
    assert max(page.locator("article table").evaluate_all(right)) <= 718
    left = page.locator("#jb-print-docs-body h1").bounding_box()["x"]
    assert left > 0
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(ground) != "rgb(255, 255, 255)"


def test_axe_finds_no_serious_fault(page: Page) -> None:
    assert not faults_of_structure(page)
    assert not faults_of_colour(page)[0]


@pytest.mark.parametrize("name", KINDS)
def test_axe_finds_nothing_too_pale_in_the_light(opened, name: str) -> None:
    """In the other scheme only colours differ, alike on pages of a kind."""
    page, _ = opened(name, color_scheme="light")
    assert not faults_of_colour(page)[0]


CODE = "article .highlight pre span"


@pytest.mark.parametrize(
    ("what", "first", "change"),
    [
        (f"{CODE}.n", -1, "color = '#222'"),
        (f"{CODE}.n", -1, "opacity = '0.3'"),
        (f"{CODE}.n", 0, "color = '#222'"),
        ("article p", -1, "color = '#333'"),
        ("article p", -1, "backgroundColor = '#ddd'"),
    ],
)
def test_axe_sees_text_that_cannot_be_read(opened, what: str, first: int, change: str) -> None:
    """The last of a kind alone, or all of it."""
    page, _ = opened("activation-scaling/one-prompt", color_scheme="dark")
    before = page.locator("body").inner_text()
    page.evaluate(f"""() => {{
      const all = [...document.querySelectorAll("{what}")].filter((each) => each.checkVisibility());
      for (const each of all.slice({first})) each.style.{change};
    }}""")
    faults, n_looks, n_alike = faults_of_colour(page)
    assert [id for id, _ in faults] == ["color-contrast"]
    assert 10 < n_looks < n_alike / 10
    assert page.locator("body").inner_text() == before


def test_axe_sees_what_is_wrong_with_links_controls_and_pictures(opened) -> None:
    """In code, too, though it is not shown every piece."""
    page, _ = opened("activation-scaling/one-prompt")
    page.evaluate("""() => {
      const seen = (what) => {
        const all = [...document.querySelectorAll(`article ${what}`)];
        return all.filter((each) => each.checkVisibility());
      };
      const names = seen(".highlight pre span.n");
      names[0].innerHTML += '<a href="#nowhere"></a>';
      names[1].setAttribute("role", "checkbox");
      seen("figure img:not(.drawing)")[0].removeAttribute("alt");
      seen("section > p")[1].innerHTML +=
        ' As <a href="#here" style="color: #444; text-decoration: none">here</a>.';
    }""")
    before = page.locator("body").inner_text()
    found = [id for id, _ in faults_of_structure(page)]
    assert found == ["aria-required-attr", "image-alt", "link-in-text-block", "link-name"]
    assert page.locator("body").inner_text() == before


def test_formulae_are_drawn_where_no_script_runs(opened) -> None:
    page, _ = opened("notation", java_script_enabled=False)
    boxes = [formula.bounding_box() for formula in page.locator(".math .katex-html").all()]
    assert boxes and all(box["width"] > 1 and box["height"] > 1 for box in boxes)


def test_a_copied_formula_is_its_tex(opened) -> None:
    page, _ = opened("notation")
    copied, tex = page.evaluate("""() => {
      let text = null;
      const keep = (event) => { text = event.clipboardData.getData('text/plain'); };
      window.addEventListener('copy', keep);
      const formula = document.querySelector('article p .math');
      getSelection().selectAllChildren(formula);
      document.execCommand('copy');
      return [text, formula.querySelector('annotation').textContent];
    }""")
    assert copied == f"${tex}$"


def test_the_scorecard_narrows_to_one_verdict_and_is_whole_without_script(
    opened, site: Path
) -> None:
    with (site / "scorecard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    held = [row["id"] for row in rows if row["verdict"] == "holds"]
    page, _ = opened("scorecard", java_script_enabled=False)
    assert page.locator("table.scorecard tbody").count() == len(rows)
    assert not page.locator(".scorecard-filter").is_visible()
    page, _ = opened("scorecard")
    choice = page.locator(".scorecard-filter select[data-filter=verdict]")
    choice.focus()
    page.keyboard.press("ArrowDown")
    assert choice.input_value() == "holds"
    ids = page.locator("table.scorecard tbody tr:visible td:first-child > strong")
    assert ids.all_text_contents() == held
    told = page.locator(".scorecard-filter output").text_content()
    assert told == f"{len(held)} of {len(rows)} results"
