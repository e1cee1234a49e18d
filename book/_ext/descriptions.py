"""A meta description for every page: its first paragraph; a Sphinx extension."""

from __future__ import annotations

from html import escape
from textwrap import shorten
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

LENGTH = 200  # characters; search engines show about as many


def description(doctree: nodes.Node) -> str:
    """The beginning of a page's first paragraph; empty if it has none."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            return shorten(paragraph.astext(), LENGTH, placeholder=" …")
    return ""


def describe(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Add the description to the head of a page that has none of its own."""
    if doctree is None or 'name="description"' in context["metatags"]:
        return
    if text := description(doctree):
        context["metatags"] += f'\n<meta name="description" content="{escape(text)}">'


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
