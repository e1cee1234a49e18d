"""Excerpts for search from disk, where a page may not read another one; a Sphinx extension.

Sphinx' search reads each page that it found for an excerpt. ``search-texts.js`` holds the pages'
texts in their sections, and ``js/search.js``, on the page with the results alone, hands them over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from sphinx.application import Sphinx

LEFT_OUT = ".headerlink, script, style, svg, img, .katex-html, annotation, select"
BLOCKS = {"div", "p", "pre", "li", "dt", "dd", "td", "th", "h1", "h2", "h3", "figcaption"}


def text_of(html: str) -> str:
    """A page's text, with nothing of its markup but the sections and their ids."""
    main = BeautifulSoup(html, "html.parser").select_one("[role=main] article")
    for element in main.select(LEFT_OUT):
        element.decompose()
    for element in main.find_all(True):
        if element.name == "section":
            element.attrs = {"id": element.get("id", "")}
        else:
            if element.name in BLOCKS:
                element.insert_after(" ")
            element.unwrap()
    return " ".join(main.decode_contents().split())


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
