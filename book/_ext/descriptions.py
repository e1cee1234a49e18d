"""A Sphinx extension: every page describes itself to search engines and to those who share a link to it."""

from __future__ import annotations

from html import escape
from textwrap import shorten
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

LENGTH = 200  # characters, which is about what is shown of it


def description(doctree: nodes.Node) -> str:
    """The beginning of a page's first paragraph; empty if it has none."""
    paragraphs = (
        paragraph
        for paragraph in doctree.findall(nodes.paragraph)
        if isinstance(paragraph.parent, nodes.section)
    )
    first = next(paragraphs, None)
    return "" if first is None else shorten(first.astext(), LENGTH, placeholder=" …")


def describe(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Add the description to the head of a page, unless the page has one of its own."""
    if (
        doctree is not None
        and 'name="description"' not in context["metatags"]
        and (text := description(doctree))
    ):
        context["metatags"] += f'\n<meta name="description" content="{escape(text)}">'


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
