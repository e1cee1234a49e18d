"""Fixtures: a local server of the site, and pages opened in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.site.browsing import WIDTHS, Tab, Visit

FACTS = Path(__file__).with_name("facts.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def server(site: Path) -> Iterator[str]:
    """The address of a local server of the site."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def address(site: Path, server: str) -> Callable[[str, str], str]:
    """The address of a page by name and scheme."""
    return lambda page, scheme: f"{site.as_uri() if scheme == 'file' else server}/{page}.html"


@pytest.fixture(scope="session")
def tab(browser: Browser, site: Path, server: str) -> Callable[..., Tab]:
    """A tab by the name of its use and the options of its window, the same each time."""
    return cache(lambda use, **options: Tab(browser, (site.as_uri(), server), **options))


@pytest.fixture(scope="session")
def visit(tab, address) -> Callable[[str, int, str], Visit]:
    """What was seen of a page at a width, opened by a scheme.

    Each scheme opens it at a width of its own, once in a session, and then makes it narrower or
    wider: a reader turns a phone, too.
    """

    @cache
    def open_page(name: str, scheme: str) -> dict[int, Visit]:
        widths = WIDTHS if scheme == "file" else WIDTHS[::-1]
        seen = tab(scheme).open(address(name, scheme), widths[0])
        page, start = tab(scheme).page, time.monotonic()
        facts = {widths[0]: page.evaluate(FACTS)}
        page.set_viewport_size({"width": widths[1], "height": 800})
        facts[widths[1]] = page.evaluate(FACTS)
        # Milliseconds since it was loaded, to catch a script that asks for something late.
        page.wait_for_timeout(max(0, 200 - 1000 * (time.monotonic() - start)))
        return {width: replace(seen, facts=facts[width]) for width in widths}

    return lambda name, width, scheme: open_page(name, scheme)[width]


@pytest.fixture(scope="session")
def opened(tab, address) -> Callable[..., tuple[Page, Visit]]:
    """Opens a page in place of the one that was opened before, with options of the window."""

    def open_page(name: str, width: int = WIDTHS[1], color_scheme: str = "light", **options):
        one = tab("opened", **options)
        return one.page, one.open(address(name, "file"), width, color_scheme)

    return open_page
