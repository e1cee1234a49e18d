"""A Sphinx extension: pages that are light, and whole without a script.

KaTeX draws each formula while the site is built, so that a page carries the drawing (with MathML for screen readers) rather
than a program that draws. Code comes without the mark-up that no style colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import dukpy
from docutils import nodes
from pygments.formatters import HtmlFormatter
from pygments.token import Name, Punctuation, Text, Whitespace
from sphinx.application import Sphinx
from sphinx.highlighting import PygmentsBridge
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
KATEX = Path(__file__).resolve().parents[1] / "_assets" / "katex" / "katex.min.js"
# strict: what LaTeX would not take is an error here too.
DRAW = "katex.renderToString(dukpy.tex, {displayMode: dukpy.display, strict: 'error'})"
# Tokens that both styles of the book (_config.yml) draw in the colour of the text around them: a quarter of a page's weight.
PLAIN = {Name, Punctuation, Whitespace}
SHORT = 24  # characters of TeX


@cache
def interpreter() -> dukpy.JSInterpreter:
    """KaTeX, loaded once a build."""
    javascript = dukpy.JSInterpreter()
    javascript.evaljs(KATEX.read_text(encoding="utf-8") + ";null")
    return javascript


@cache
def draw(tex: str, display: bool) -> str:
    """A formula as HTML.

    Args:
        tex: what stands between the dollars.
        display: on lines of its own.

    Raises:
        ValueError: KaTeX cannot read it.
    """
    try:
        return interpreter().evaljs(DRAW, tex=tex, display=display)
    except dukpy.JSRuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def drawn(node: nodes.Element, tex: str, display: bool) -> str:
    """As :func:`draw`; a formula that cannot be read is warned of, which makes the build fail, and stands as code."""
    try:
        return draw(tex, display)
    except ValueError as error:
        logger.warning("%s", error, location=node)
        return f"<code>{escape(tex)}</code>"


def aligned(tex: str) -> str:
    """Blank lines between equations and ``\\\\`` in them make lines, as in the other renderers of Sphinx."""
    parts = [
        rf"\begin{{split}}{part}\end{{split}}" if r"\\" in part else part
        for part in tex.split("\n\n")
        if part.strip()
    ]
    return (
        parts[0] if len(parts) == 1 else r"\begin{aligned}" + r"\\".join(parts) + r"\end{aligned}"
    )


def keep_punctuation(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Take a bracket in front of a formula and the punctuation behind it along with it: browsers break lines there."""
    for node in doctree.findall(nodes.math):
        at = node.parent.index(node)
        before, behind = (
            node.parent[i] if 0 <= i < len(node.parent) else None for i in (at - 1, at + 1)
        )
        if isinstance(before, nodes.Text) and (mark := re.search(r"[(\[“‘]+$", before)):
            node["before"], node.parent[at - 1] = mark[0], nodes.Text(before[: mark.start()])
        if isinstance(behind, nodes.Text) and (mark := re.match(r"[,.;:!?)\]”’]+", behind)):
            node["behind"], node.parent[at + 1] = mark[0], nodes.Text(behind[mark.end() :])


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    html = drawn(node, node.astext(), display=False)
    formula = (
        self.starttag(node, "span", "", CLASS="math notranslate nohighlight") + html + "</span>"
    )
    formula = self.encode(node.get("before", "")) + formula + self.encode(node.get("behind", ""))
    # A long formula may break at its signs, so that it fits a narrow screen.
    whole = len(node.astext()) <= SHORT and ("before" in node or "behind" in node)
    self.body.append(f'<span class="whole">{formula}</span>' if whole else formula)
    raise nodes.SkipNode


def visit_displaymath(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    tex = node.astext() if node["nowrap"] else aligned(node.astext())
    self.body.append(drawn(node, tex, display=True) + "</div>\n")
    raise nodes.SkipNode


class LightFormatter(HtmlFormatter):
    """Code in colours, without mark-up for what has none."""

    def format_unencoded(self, tokensource: Iterable[tuple[Any, str]], outfile: Any) -> None:
        super().format_unencoded(
            ((Text if kind in PLAIN else kind, text) for kind, text in tokensource), outfile
        )


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("katex", (visit_math, None), (visit_displaymath, None))
    app.connect("doctree-resolved", keep_punctuation)
    PygmentsBridge.html_formatter = LightFormatter
    return {"parallel_read_safe": True, "parallel_write_safe": True}
