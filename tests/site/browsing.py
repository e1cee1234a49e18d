"""Pages, widths, and browser tabs whose requests to other hosts are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Request, Response, Route
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).parents[2]
PAGES = list(parse_toc_yaml(ROOT / "book" / "_toc.yml"))
WIDTHS = (390, 1280)  # pixels: a phone, a laptop
SCHEMES = ("file", "http")
# What a page notes on leaving (the theme does) the next one must not find.
FORGET = """() => {
  addEventListener("pagehide", () => { localStorage.clear(); sessionStorage.clear(); });
}"""


@dataclass
class Visit:
    """What happened when a page was opened, and what it held once it was drawn."""

    outside: list[str] = field(default_factory=list)  # requests to another host, all refused
    failed: list[str] = field(default_factory=list)  # requests without an answer
    console: list[str] = field(default_factory=list)  # errors
    facts: dict = field(default_factory=dict)  # see facts.js


class Tab:
    """A tab that shows one page after another, each as a new tab would.

    A page opens in half the time where another has left scripts, styles and fonts ready for use.

    Args:
        browser: the browser.
        own: the beginnings of addresses that it may ask for.
        options: of the browser window.
    """

    def __init__(self, browser: Browser, own: tuple[str, ...], **options) -> None:
        self.page = browser.new_context(**options).new_page()
        self.seen = Visit()

        def refuse(route: Route) -> None:
            self.seen.outside.append(route.request.url)
            route.abort()

        def on_failure(request: Request) -> None:
            self.seen.failed.append(f"{request.url}: {request.failure}")

        def on_response(response: Response) -> None:
            if response.status >= 400:
                self.seen.failed.append(f"{response.url}: {response.status}")

        def on_message(message) -> None:
            if message.type == "error":
                self.seen.console.append(message.text)

        # All other addresses, and these alone: each request that is asked about takes time.
        allowed = "|".join(map(re.escape, (*own, "data:", "blob:", "about:")))
        self.page.route(re.compile(f"^(?!{allowed})"), refuse)
        self.page.on("console", on_message)
        self.page.on("pageerror", lambda error: self.seen.console.append(str(error)))
        self.page.on("requestfailed", on_failure)
        self.page.on("response", on_response)

    def open(self, address: str, width: int, color_scheme: str = "light") -> Visit:
        """Open a page, and return the record of what it does until the next is opened."""
        self.page.evaluate(FORGET)
        self.page.goto("about:blank")  # what the last page still asks for ends here
        self.seen = Visit()
        self.page.set_viewport_size({"width": width, "height": 800})
        self.page.emulate_media(media="null", color_scheme=color_scheme)
        self.page.mouse.move(0, 0)
        self.page.goto(address, wait_until="load")
        return self.seen
