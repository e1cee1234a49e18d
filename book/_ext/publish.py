"""What a site needs at a public address: a Sphinx extension.

With ``baseurl`` set in ``_config.yml`` the site gets ``sitemap.xml``, ``404.html`` and a card for
links shared elsewhere (Sphinx adds canonical links); with ``repository.url``, the theme's buttons
to the source. Without them nothing is added, so that no page holds a dead link.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from sphinx.application import Sphinx
from sphinx.config import Config

BUTTONS = ("use_repository_button", "use_issues_button", "use_edit_page_button")
NOT_FOUND = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Page not found</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font: 1.1rem/1.5 system-ui, sans-serif; margin: 4rem auto; max-width: 40rem;
padding: 0 1rem }}</style></head>
<body><h1>Page not found</h1><p>There is no page at this address. The book begins at
<a href="{home}">its introduction</a>, which links to every chapter.</p></body></html>
"""


def turn_on_buttons(app: Sphinx, config: Config) -> None:
    """Show the links to the source where a repository is named."""
    options = config.html_theme_options
    if options.get("repository_url"):
        options.update(dict.fromkeys(BUTTONS, True))


def add_card(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Add the tags that sites read when they show a link to a page."""
    base = app.config.html_baseurl
    if not base or doctree is None:
        return
    card = {
        "og:type": "article",
        "og:site_name": app.config.html_title,
        "og:title": context["title"],
        "og:url": address(base, pagename),
        "og:image": urljoin(base.rstrip("/") + "/", "_static/result.webp"),
        "og:image:alt": "Logits of two answers over the strength β: the curves cross.",
    }
    for name, value in card.items():
        context["metatags"] += f'\n<meta property="{name}" content="{escape(value)}">'
    context["metatags"] += '\n<meta name="twitter:card" content="summary_large_image">'


def address(base: str, page: str) -> str:
    """The public address of a page."""
    return urljoin(base.rstrip("/") + "/", f"{page}.html")


def write_files(app: Sphinx, exception: Exception | None) -> None:
    """Write ``sitemap.xml`` and ``404.html`` at the root of the site."""
    base = app.config.html_baseurl
    if exception is not None or app.builder.format != "html" or not base:
        return
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append('<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">')
    for page in sorted(app.env.found_docs):
        lines.append(f"<url><loc>{escape(address(base, page))}</loc></url>")
    lines.append("</urlset>\n")
    folder = Path(app.outdir)
    (folder / "sitemap.xml").write_text("\n".join(lines), encoding="utf-8")
    # A server shows this page at any depth, so its link starts at the root of the host.
    home = urlsplit(address(base, "index")).path
    (folder / "404.html").write_text(NOT_FOUND.format(home=escape(home)), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", turn_on_buttons)
    app.connect("html-page-context", add_card)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
