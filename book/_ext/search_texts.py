"""Excerpts for search from disk, where a page may not read another one; a Sphinx extension.

Sphinx' search reads each page that it found for an excerpt. ``search-texts.js`` holds the pages'
texts in their sections, and ``js/search.js``, on the page with the results alone, hands them over.
"""

from __future__ import annotations

import json
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

LEFT_OUT = {"headerlink", "katex-html"}  # classes
NO_TEXT = {"script", "style", "svg", "annotation", "select"}
BLOCKS = {"div", "p", "pre", "li", "dt", "dd", "td", "th", "h1", "h2", "h3", "figcaption"}


class Text(HTMLParser):
    """Collects an article's text and its sections; a tree of the page takes ten times as long."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.in_main = self.in_article = False
        self.skipped, self.depth = "", 0  # an element that is left out, and those like it inside

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin the article, a section or something that is left out."""
        values = dict(attrs)
        if self.skipped:
            self.depth += tag == self.skipped
        elif not self.in_article:
            self.in_main |= values.get("role") == "main"
            self.in_article = self.in_main and tag == "article"
        elif tag in NO_TEXT or LEFT_OUT & set((values.get("class") or "").split()):
            self.skipped, self.depth = tag, 1
        elif tag == "section":
            self.parts.append(f'<section id="{escape(values.get("id") or "")}">')

    def handle_endtag(self, tag: str) -> None:
        """End what was begun; words of two blocks are kept apart."""
        if self.skipped:
            self.depth -= tag == self.skipped
            self.skipped = self.skipped if self.depth else ""
        elif tag == "article":
            self.in_main = self.in_article = False
        elif self.in_article and tag == "section":
            self.parts.append("</section>")
        elif self.in_article and tag in BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        """Keep text of the article."""
        if self.in_article and not self.skipped:
            self.parts.append(escape(data, quote=False))


def text_of(html: str) -> str:
    """A page's text, with nothing of its markup but the sections and their ids."""
    found = Text()
    found.feed(html)
    return " ".join("".join(found.parts).split())


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the texts of all pages to the root of the site."""
    if exception is None and app.builder.format == "html":
        texts = {}
        for page in sorted(app.env.found_docs):
            html = Path(app.builder.get_outfilename(page)).read_text(encoding="utf-8")
            texts[page] = text_of(html)
        text = f"window.SEARCH_TEXTS = {json.dumps(texts, ensure_ascii=False)};\n"
        Path(app.outdir, "search-texts.js").write_text(text, encoding="utf-8")


def add_script(app: Sphinx, pagename: str, *_: Any) -> None:
    """The page with the results loads the script that uses them."""
    if pagename == "search":
        app.add_js_file("js/search.js")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", add_script)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
