"""Fixtures: the site, built once in the profile smoke; a browser that may ask no other host; a visit to every page."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).parents[2]
PAGES = list(parse_toc_yaml(ROOT / "book" / "_toc.yml"))
WIDTHS = (390, 1280)  # pixels: a phone, a laptop
SCHEMES = ("file", "http")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


@dataclass
class Visit:
    """What happened when a page was opened, and what it held once it was drawn."""

    outside: list[str] = field(default_factory=list)  # requests to another host, all refused
    failed: list[str] = field(default_factory=list)  # requests that brought nothing
    console: list[str] = field(default_factory=list)  # errors
    facts: dict = field(default_factory=dict)


# Asked of every page in one go, since a page takes longer to open than to look at.
FACTS = r"""async () => {
  await document.fonts.ready;
  const words = document.querySelector('article').cloneNode(true);
  words.querySelectorAll('pre, code, script, .katex').forEach(element => element.remove());
  const wide = document.documentElement, formulae = [...document.querySelectorAll('.math')];
  return {
    title: document.title, description: document.querySelector('meta[name="description"]')?.content ?? '', lang: wide.lang, icon: document.querySelector('link[rel~="icon"]')?.href,
    headings: document.querySelectorAll('article h1').length,
    scroll: Math.max(wide.scrollWidth, document.body.scrollWidth), width: wide.clientWidth,
    images: [...document.images].map(image => ({alt: image.alt, src: image.src.slice(0, 200), drawn: image.complete && image.naturalWidth > 0})),
    links: [...document.querySelectorAll('a[href]')].map(link => link.href),
    // Drawn: in view unless what it stands in is folded, with MathML for screen readers, and with its TeX, which is what a reader copies.
    formulae: formulae.length, drawn: formulae.filter(element => {
      const [one, ...more] = element.querySelectorAll('.katex'), box = one?.querySelector('.katex-html').getBoundingClientRect();
      return one && !more.length && (!one.checkVisibility() || (box.width > 1 && box.height > 1)) && one.querySelector('math mrow')
        && one.querySelector('annotation[encoding="application/x-tex"]').textContent.trim();
    }).length,
    // What lies to the left of its frame cannot be scrolled to; what lies to the right needs the keyboard.
    cut: [...document.querySelectorAll('.katex-display')].filter(element => element.checkVisibility()
      && (element.querySelector('.katex-html').getBoundingClientRect().left < element.getBoundingClientRect().left - 1
        || (element.scrollWidth > element.clientWidth + 1 && element.tabIndex !== 0))).map(element => element.textContent),
    wrong: [...document.querySelectorAll('.katex-error, .math > code')].map(element => element.textContent),
    words: words.textContent,
    bytes: [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
      .reduce((sum, entry) => {
        sum[entry.name.includes('/_static/') ? 'shared' : 'own'] += entry.decodedBodySize;
        return sum;
      }, {shared: 0, own: 0}),
    loaded: performance.getEntriesByType('resource').map(entry => entry.name),
    widgets: document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length,
  };
}"""


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
def browser() -> Iterator[Browser]:
    """Chromium or Chrome, as installed on this machine."""
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        reason = f"no browser: none of {', '.join(BROWSERS)} is on the PATH"
        # On a CI machine a test that does not run must not look like one that passed.
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(site: Path, server: str) -> Callable[[str, str], str]:
    """The address of a page by name and scheme."""
    return lambda page, scheme: f"{site.as_uri() if scheme == 'file' else server}/{page}.html"


def watch(context: BrowserContext, own: tuple[str, ...]) -> tuple[Page, Visit]:
    """A new page of a browser window whose requests to anything but the addresses in ``own`` are refused, and the record of what it does."""
    seen = Visit()

    def decide(route: Route) -> None:
        if route.request.url.startswith((*own, "data:", "blob:")):
            route.continue_()
        else:
            seen.outside.append(route.request.url)
            route.abort()

    page = context.new_page()
    page.route("**/*", decide)
    page.on(
        "console", lambda message: message.type == "error" and seen.console.append(message.text)
    )
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on(
        "requestfailed", lambda request: seen.failed.append(f"{request.url}: {request.failure}")
    )
    page.on(
        "response",
        lambda response: (
            response.status >= 400 and seen.failed.append(f"{response.url}: {response.status}")
        ),
    )
    return page, seen


@pytest.fixture(scope="session")
def visit(browser: Browser, site: Path, server: str, address) -> Callable[[str, int, str], Visit]:
    """Opens a page at a width by a scheme, once in a session, and says what was seen."""

    # One window a width: what a page has loaded, the next does not parse again.
    window = cache(lambda width: browser.new_context(viewport={"width": width, "height": 800}))

    @cache
    def open_page(name: str, width: int, scheme: str) -> Visit:
        page, seen = watch(window(width), (site.as_uri(), server))
        page.goto(address(name, scheme), wait_until="load")
        seen.facts = page.evaluate(FACTS)
        page.wait_for_timeout(
            200
        )  # milliseconds, in which a script that asks for something late is still caught
        page.close()
        return seen

    return open_page
