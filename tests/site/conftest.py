"""Fixtures: a local server of the site, and pages opened in them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.site.browsing import WIDTHS, Visit, watch

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
def visit(browser: Browser, site: Path, server: str, address) -> Callable[[str, int, str], Visit]:
    """What was seen of a page at a width, opened by a scheme.

    Each scheme opens it at a width of its own, once in a session, and then makes it narrower or
    wider: a reader turns a phone, too.
    """
    # One window: what a page has loaded, the next does not parse again.
    window = cache(browser.new_context)

    @cache
    def open_page(name: str, scheme: str) -> dict[int, Visit]:
        widths = WIDTHS if scheme == "file" else WIDTHS[::-1]
        page, seen = watch(window(), (site.as_uri(), server))
        page.set_viewport_size({"width": widths[0], "height": 800})
        page.goto(address(name, scheme), wait_until="load")
        facts = {widths[0]: page.evaluate(FACTS)}
        page.set_viewport_size({"width": widths[1], "height": 800})
        facts[widths[1]] = page.evaluate(FACTS)
        page.wait_for_timeout(200)  # milliseconds, to catch a script that asks for something late
        page.close()
        return {width: replace(seen, facts=facts[width]) for width in widths}

    return lambda name, width, scheme: open_page(name, scheme)[width]


@pytest.fixture(scope="session")
def open_page(browser: Browser, site: Path, server: str, address) -> Callable:
    """Opens a page in a window of its own, which the caller closes."""

    def open_page(name: str, width: int = WIDTHS[1], **options) -> tuple[Page, Visit]:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        page, seen = watch(context, (site.as_uri(), server))
        page.goto(address(name, "file"), wait_until="load")
        return page, seen

    return open_page


@pytest.fixture
def opened(open_page) -> Iterator[Callable]:
    """Opens a page in a window of its own, which is closed after the test."""
    contexts = []

    def open_for_a_test(*args, **options) -> tuple[Page, Visit]:
        page, seen = open_page(*args, **options)
        contexts.append(page.context)
        return page, seen

    yield open_for_a_test
    for context in contexts:
        context.close()
