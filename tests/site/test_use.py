"""What a reader does on the pages: the keyboard alone, the search, dark mode, no scripts; and a check for accessibility."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PAGES, WIDTHS, watch

pytestmark = pytest.mark.site

# What has the focus: its kind and name, whether it is in sight, and whether the eye can tell that it has the focus.
FOCUS = """() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  return {
    tag: element.tagName, name: (element.getAttribute('aria-label') || element.title || element.textContent || '').trim(),
    href: element.getAttribute('href') || '', inside: ['article', '#pst-primary-sidebar', '#pst-primary-sidebar-modal', 'dialog']
      .filter(selector => element.closest(selector)),
    seen: box.width > 0 && box.height > 0,
    marked: (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none',
  };
}"""


@pytest.fixture
def opened(browser, site: Path, server: str, address):
    """Opens a page with its own record; closed after the test."""
    contexts = []

    def open_page(name: str, width: int = WIDTHS[1], **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page, seen = watch(context, (site.as_uri(), server))
        page.goto(address(name, "file"), wait_until="load")
        return page, seen

    yield open_page
    for context in contexts:
        context.close()


def tab_through(page, limit: int = 60) -> list[dict]:
    """Press Tab until the focus has gone round, and say where it was."""
    stops: list[dict] = []
    for _ in range(limit):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        if stop is None:
            break
        stops.append(stop)
    return stops


@pytest.mark.parametrize("name", PAGES)
def test_tab_reaches_navigation_search_and_text_and_shows_where_it_is(opened, name: str) -> None:
    page, _ = opened(name)
    stops = tab_through(page)
    assert "Skip to main content" in stops[0]["name"]
    assert any("earch" in stop["name"] for stop in stops)
    assert any("#pst-primary-sidebar" in stop["inside"] and stop["tag"] == "A" for stop in stops)
    assert any("article" in stop["inside"] for stop in stops)
    assert not [stop for stop in stops if not (stop["seen"] and stop["marked"])]


def test_enter_on_the_first_stop_skips_to_the_text(opened) -> None:
    page, _ = opened(PAGES[0])
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("() => !!document.activeElement.closest('main')")


def test_the_menu_opens_by_keyboard_on_a_narrow_screen(opened) -> None:
    page, _ = opened(PAGES[0], WIDTHS[0])
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.classList.contains('primary-toggle')"):
            break
    page.keyboard.press("Enter")
    link = page.locator("dialog[open] a.reference.internal", has_text="Notation")
    link.wait_for(state="visible", timeout=3000)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.textContent.includes('Notation')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/notation.html*", timeout=5000)


def test_search_finds_a_page_without_a_server(opened) -> None:
    page, seen = opened(PAGES[0])
    page.keyboard.press("Control+k")
    page.keyboard.type("Kullback")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=Kullback*", timeout=5000)
    page.locator("#search-results a", has_text="Notation").first.wait_for(timeout=5000)
    assert not seen.outside


def test_figures_keep_their_white_ground_in_dark_mode(opened) -> None:
    page, _ = opened(PAGES[0], color_scheme="dark")
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
    styles = page.evaluate(
        "() => [...document.querySelectorAll('article img')].map(i => [getComputedStyle(i).backgroundColor, getComputedStyle(i).filter])"
    )
    assert styles and all(style == ["rgb(255, 255, 255)", "none"] for style in styles)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_fault(opened, name: str, scheme: str) -> None:
    page, _ = opened(name, color_scheme=scheme)
    # A colour that is still on its way to the scheme's own is not what a reader sees.
    page.evaluate(
        "() => Promise.all(document.getAnimations().map(animation => animation.finished))"
    )
    # Only colours differ between the two.
    options = {} if scheme == "light" else {"runOnly": ["color-contrast"]}
    faults = [
        (fault["id"], [node["html"][:200] for node in fault["nodes"]])
        for fault in Axe().run(page, options=options).response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert not faults


def test_formulae_are_drawn_where_no_script_runs(opened) -> None:
    page, _ = opened("notation", java_script_enabled=False)
    boxes = [formula.bounding_box() for formula in page.locator(".math .katex-html").all()]
    assert boxes and all(box["width"] > 1 and box["height"] > 1 for box in boxes)


def test_a_copied_formula_is_its_tex(opened) -> None:
    page, _ = opened("notation")
    copied = page.evaluate("""() => {
      let text = null;
      window.addEventListener('copy', event => { text = event.clipboardData.getData('text/plain'); });
      const formula = document.querySelector('article p .math');
      getSelection().selectAllChildren(formula);
      document.execCommand('copy');
      return [text, formula.querySelector('annotation').textContent];
    }""")
    assert copied[0] == f"${copied[1]}$"


def test_the_scorecard_narrows_to_one_verdict_and_is_whole_without_script(
    opened, site: Path
) -> None:
    with (site / "scorecard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    held = [row["id"] for row in rows if row["verdict"] == "holds"]
    visible = "rows => rows.filter(row => row.checkVisibility()).map(row => row.querySelector('strong').textContent)"
    page, _ = opened("scorecard", java_script_enabled=False)
    assert (
        page.locator("table.scorecard tbody tr").count() == len(rows)
        and not page.locator(".scorecard-filter").is_visible()
    )
    page, _ = opened("scorecard")
    choice = page.locator(".scorecard-filter select[data-filter=verdict]")
    choice.focus()
    page.keyboard.press("ArrowDown")
    assert choice.input_value() == "holds"
    assert page.eval_on_selector_all("table.scorecard tbody tr", visible) == held
    assert (
        page.locator(".scorecard-filter output").text_content()
        == f"{len(held)} of {len(rows)} results"
    )
