"""Maps of a published page say what a cell holds: by mouse, by tap, by keyboard; not on paper."""

from __future__ import annotations

import json
import re

import pytest

from tests.site.browsing import WIDTHS

pytestmark = pytest.mark.site

# Pages with maps: how many figures have some, and what the columns are.
MAPS = {
    "activation-scaling/one-prompt": (1, "position"),
    "activation-scaling/attribution": (1, "position"),
    "activation-scaling/dynscalar": (1, "position"),
    "activation-scaling/last-position": (1, "head"),
    "activation-scaling/refits": (1, "position"),
    "observable-propagation/pronouns": (2, "head"),
}
ONE = "activation-scaling/refits"


def maps_of(page) -> list[dict]:
    return json.loads(page.locator("script.map-cells").first.text_content())


def centre(frame, found: dict, row: int, column: int) -> dict[str, float]:
    """Of a cell, in pixels from the frame's corner."""
    (left, top, width, height), box = found["place"], frame.bounding_box()
    across = left + width * (column + 0.5) / len(found["values"][0])
    down = top + height * (row + 0.5) / len(found["values"])
    return {"x": box["width"] * across, "y": box["height"] * down}


@pytest.mark.parametrize("name", MAPS)
def test_the_cell_under_the_pointer_is_read_out(opened, name: str) -> None:
    n_figures, columns = MAPS[name]
    page, seen = opened(name)
    assert page.locator(".map-frame").count() == n_figures
    frame, found = page.locator(".map-frame").first, maps_of(page)[-1]
    row, column = 2, len(found["values"][0]) - 1
    frame.scroll_into_view_if_needed()
    frame.hover(position=centre(frame, found, row, column))
    said = frame.locator(".map-said").inner_text().replace("−", "-")
    layer = len(found["values"]) - 1 - row
    place = f"layer {layer}, {columns} {found['first'] + column}"
    assert re.search(rf"\b{place}\b", said)
    assert not found["tokens"] or f"token {found['tokens'][-1]}" in said
    value = re.search(r": (-?[\d.]+(?:e[+-]\d+)?)(?: \(|$)", said)[1]
    assert float(value) == found["values"][row][column]
    frame.hover(position={"x": 1, "y": 1})  # the margin has no cell
    assert not frame.locator(".map-said").is_visible() and not seen.console


def test_one_tab_stop_and_the_arrow_keys_reach_every_map(opened) -> None:
    page, _ = opened(ONE)
    frame, found = page.locator(".map-frame").first, maps_of(page)
    said = frame.locator(".map-said")
    frame.focus()
    page.keyboard.press("ArrowDown")
    assert f"layer {len(found[0]['values']) - 2}, position 0" in said.inner_text()
    for _ in found[0]["values"][0]:
        page.keyboard.press("ArrowRight")
    assert said.inner_text().startswith(found[1]["title"]) and "position 0" in said.inner_text()
    page.keyboard.press("ArrowLeft")
    assert said.inner_text().startswith(found[0]["title"])
    page.keyboard.press("Escape")
    assert not said.is_visible()
    assert frame.locator("[tabindex]").count() == 0


def test_a_tap_reads_a_cell_within_a_phone_s_screen(opened) -> None:
    page, _ = opened(ONE, WIDTHS[0], has_touch=True)
    frame, found = page.locator(".map-frame").first, maps_of(page)[0]
    frame.scroll_into_view_if_needed()
    frame.tap(position=centre(frame, found, 3, 5))
    said = frame.locator(".map-said")
    box = said.bounding_box()
    assert "position 5" in said.inner_text()
    assert box["x"] >= 0 and box["x"] + box["width"] <= WIDTHS[0]
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[0]


def test_on_paper_a_map_is_the_picture_alone(opened) -> None:
    page, _ = opened(ONE)
    frame, found = page.locator(".map-frame").first, maps_of(page)[0]
    frame.scroll_into_view_if_needed()
    frame.hover(position=centre(frame, found, 3, 5))
    page.emulate_media(media="print")
    for hidden in (".map-said", ".map-mark", ".map-hint"):
        assert not page.locator(hidden).first.is_visible()
    assert frame.locator("img").is_visible()
