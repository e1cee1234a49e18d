"""Formulae drawn by KaTeX while the site is built; a Sphinx extension.

A page carries the drawing, with MathML for screen readers, and needs no script to show it.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import dukpy
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
KATEX = Path(__file__).resolve().parents[1] / "_assets" / "katex" / "katex.min.js"
# strict: what LaTeX would not accept is an error here too.
DRAW = "katex.renderToString(dukpy.tex, {displayMode: dukpy.display, strict: 'error'})"
SHORT = 24  # characters of TeX


@cache
def interpreter() -> dukpy.JSInterpreter:
    """A JavaScript interpreter with KaTeX loaded, one for the whole build."""
    javascript = dukpy.JSInterpreter()
    javascript.evaljs(KATEX.read_text(encoding="utf-8") + ";null")
    return javascript


@cache
def draw(tex: str, display: bool) -> str:
    """A formula as HTML.

    Args:
        tex: the source between the dollars.
        display: whether it is a displayed equation, not inline.

    Raises:
        ValueError: KaTeX cannot parse it.
    """
    try:
        return interpreter().evaljs(DRAW, tex=tex, display=display)
    except dukpy.JSRuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def drawn(node: nodes.Element, tex: str, display: bool) -> str:
    """As :func:`draw`, but a formula that KaTeX cannot parse is a warning, and shown as code."""
    try:
        return draw(tex, display)
    except ValueError as error:
        logger.warning("%s", error, location=node)
        return f"<code>{escape(tex)}</code>"


def aligned(tex: str) -> str:
    r"""Sphinx' rules: equations between blank lines are aligned, and ``\\`` in one splits it."""
    parts = []
    for part in tex.split("\n\n"):
        if part.strip():
            parts.append(rf"\begin{{split}}{part}\end{{split}}" if r"\\" in part else part)
    if len(parts) == 1:
        return parts[0]
    return r"\begin{aligned}" + r"\\".join(parts) + r"\end{aligned}"


def keep_punctuation(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Move a bracket before a formula and punctuation after it into its node.

    Browsers would otherwise break the line between the two.
    """
    for node in doctree.findall(nodes.math):
        siblings = node.parent
        at = siblings.index(node)
        if at > 0 and isinstance(siblings[at - 1], nodes.Text):
            text = siblings[at - 1].astext()
            if mark := re.search(r"[(\[“‘]+$", text):
                node["before"], siblings[at - 1] = mark[0], nodes.Text(text[: mark.start()])
        if at + 1 < len(siblings) and isinstance(siblings[at + 1], nodes.Text):
            text = siblings[at + 1].astext()
            if mark := re.match(r"[,.;:!?)\]”’]+", text):
                node["behind"], siblings[at + 1] = mark[0], nodes.Text(text[mark.end() :])


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    html = self.starttag(node, "span", "", CLASS="math notranslate nohighlight")
    html += drawn(node, node.astext(), display=False) + "</span>"
    html = self.encode(node.get("before", "")) + html + self.encode(node.get("behind", ""))
    # Only a short formula is kept on one line with its punctuation: a long one has to break.
    if len(node.astext()) <= SHORT and ("before" in node or "behind" in node):
        html = f'<span class="whole">{html}</span>'
    self.body.append(html)
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


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("katex", (visit_math, None), (visit_displaymath, None))
    app.connect("doctree-resolved", keep_punctuation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
