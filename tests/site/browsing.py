"""Pages, widths, and a browser window whose requests to other hosts are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, Request, Response, Route
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).parents[2]
PAGES = list(parse_toc_yaml(ROOT / "book" / "_toc.yml"))
WIDTHS = (390, 1280)  # pixels: a phone, a laptop
SCHEMES = ("file", "http")


@dataclass
class Visit:
    """What happened when a page was opened, and what it held once it was drawn."""

    outside: list[str] = field(default_factory=list)  # requests to another host, all refused
    failed: list[str] = field(default_factory=list)  # requests without an answer
    console: list[str] = field(default_factory=list)  # errors
    facts: dict = field(default_factory=dict)  # see facts.js


def watch(context: BrowserContext, own: tuple[str, ...]) -> tuple[Page, Visit]:
    """A new page, and the record of what it does.

    Args:
        context: the browser window.
        own: the beginnings of addresses that it may ask for.
    """
    seen, page = Visit(), context.new_page()

    def refuse(route: Route) -> None:
        seen.outside.append(route.request.url)
        route.abort()

    def on_failure(request: Request) -> None:
        seen.failed.append(f"{request.url}: {request.failure}")

    def on_response(response: Response) -> None:
        if response.status >= 400:
            seen.failed.append(f"{response.url}: {response.status}")

    def on_message(message) -> None:
        if message.type == "error":
            seen.console.append(message.text)

    # All other addresses, and these alone: each request that is asked about takes time.
    allowed = "|".join(map(re.escape, (*own, "data:", "blob:")))
    page.route(re.compile(f"^(?!{allowed})"), refuse)
    page.on("console", on_message)
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("requestfailed", on_failure)
    page.on("response", on_response)
    return page, seen
