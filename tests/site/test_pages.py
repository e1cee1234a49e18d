"""Every page, narrow and wide, from a file and from a server: complete, readable, not broken."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from tests.site.browsing import PAGES, SCHEMES, WIDTHS, Visit

pytestmark = pytest.mark.site

MEGABYTE = 1e6


@pytest.fixture(params=SCHEMES)
def scheme(request) -> str:
    return request.param


@pytest.fixture(params=WIDTHS)
def width(request) -> int:
    return request.param


@pytest.fixture(params=PAGES)
def page(request) -> str:
    return request.param


@pytest.fixture
def seen(visit, page: str, width: int, scheme: str) -> Visit:
    return visit(page, width, scheme)


def test_asks_no_other_host_for_anything(seen: Visit) -> None:
    assert not seen.outside


def test_a_page_that_asks_another_host_would_be_noticed(opened) -> None:
    """Else the test above could not fail."""
    page, seen = opened(PAGES[0])
    page.evaluate("fetch('https://example.org/').catch(() => null)")
    assert seen.outside == ["https://example.org/"]


def test_loads_all_it_asks_for(seen: Visit) -> None:
    assert not seen.failed
    assert all(image["drawn"] for image in seen.facts["images"])


def test_has_a_quiet_console(seen: Visit) -> None:
    assert not seen.console


def test_tells_nothing_of_the_machine_that_built_it(seen: Visit) -> None:
    assert not re.search(r"PosixPath\(|WindowsPath\(|\benviron\(", seen.facts["words"])
    for folder in {Path.home(), Path.cwd()} - {Path("/")}:
        assert f"{folder}/" not in seen.facts["words"]


def test_never_scrolls_sideways(seen: Visit) -> None:
    assert seen.facts["scroll"] <= seen.facts["width"]


def test_draws_all_its_mathematics(seen: Visit) -> None:
    assert seen.facts["drawn"] == seen.facts["formulae"]
    assert not seen.facts["wrong"]
    assert not seen.facts["cut"]
    assert not re.search(r"\\[(\[a-zA-Z]|\$\$", seen.facts["words"]), "TeX that nothing has drawn"


def test_some_page_has_mathematics(visit) -> None:
    """Else the test above could not fail."""
    assert any(visit(page, WIDTHS[1], "file").facts["formulae"] for page in PAGES)


def test_describes_its_pictures(visit, page: str) -> None:
    for image in visit(page, WIDTHS[1], "file").facts["images"]:
        assert len(image["alt"].split()) > 1 and not re.search(
            r"\.(png|svg|jpe?g|gif)$", image["alt"]
        ), image


def test_has_title_language_icon_and_one_heading(visit, page: str) -> None:
    facts = visit(page, WIDTHS[1], "file").facts
    assert facts["lang"].startswith("en")
    assert len(facts["title"]) > 10
    assert facts["headings"] == 1
    assert Path(unquote(facts["icon"].removeprefix("file://").partition("?")[0])).is_file()


def test_each_page_has_a_description_of_its_own(site: Path) -> None:
    descriptions = []
    for page in PAGES:
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        tag = re.search(r'<meta [^>]*name="description"[^>]*>', text)[0]
        descriptions.append(re.search(r'content="([^"]*)"', tag)[1])
    assert min(map(len, descriptions)) > 40 and len(set(descriptions)) == len(PAGES)


def test_is_light(visit, page: str) -> None:
    """Two megabytes in all, of which about a third is code and fonts that every page shares."""
    facts = visit(page, WIDTHS[1], "http").facts
    assert facts["bytes"]["shared"] > 0.1 * MEGABYTE and facts["bytes"]["own"] > 0.01 * MEGABYTE, (
        "something was counted"
    )
    assert facts["bytes"]["shared"] + facts["bytes"]["own"] < 2 * MEGABYTE


def test_loads_nothing_that_it_does_not_use(visit, page: str) -> None:
    """The theme's whole icon font loads where ours lacks an icon (book/_assets/README.md)."""
    facts = visit(page, WIDTHS[1], "http").facts
    assert facts["loaded"]
    assert not [
        name for name in facts["loaded"] if re.search(r"katex\.min\.js|searchindex|fa-solid", name)
    ]
    assert not facts["widgets"], (
        "the site does not carry the code of widgets, which would do nothing without a kernel"
    )


def test_no_chapter_held_more_than_6_gb(site: Path) -> None:
    peaks = {}
    for page in PAGES:
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        if "class='colophon'" in text or 'class="colophon"' in text:
            peaks[page] = float(re.search(r"peak memory ([\d.]+) GB", text)[1])
    assert len(peaks) >= 9, "chapters end with a colophon"
    assert max(peaks.values()) <= 6, peaks


def test_the_index_fits_a_phone(visit) -> None:
    assert visit("genindex", WIDTHS[0], "http").facts["scroll"] <= WIDTHS[0]


def test_the_whole_site_is_light(site: Path) -> None:
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 40 * MEGABYTE


class Ids(HTMLParser):
    """Collects the ids of a page's elements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(dict(attrs).get("id"))


@cache
def ids_of(path: Path) -> set[str | None]:
    """The places on a page that a link can lead to."""
    ids = Ids()
    ids.feed(path.read_text(encoding="utf-8"))
    return ids.found


def test_links_lead_somewhere(visit, site: Path, page: str) -> None:
    inside = 0
    for link in set(visit(page, WIDTHS[1], "file").facts["links"]):
        target, anchor = urldefrag(link)
        if not target.startswith("file:"):
            assert target.startswith(("https:", "http:", "mailto:", "javascript:")), link
            continue
        inside += 1
        path = Path(unquote(target.removeprefix("file://").partition("?")[0]))
        assert path.is_file() and path.is_relative_to(site), link
        if anchor:
            assert unquote(anchor) in ids_of(path), link
    assert inside > len(PAGES), "every page links at least to every other page"
