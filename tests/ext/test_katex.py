"""Formulae as HTML with MathML, and what happens to one that KaTeX cannot parse."""

from __future__ import annotations

import pytest
from docutils import nodes

from book._ext.katex import aligned, draw, drawn, keep_punctuation

pytestmark = pytest.mark.unit


def test_a_formula_is_drawn_with_mathml_and_its_tex() -> None:
    html = draw(r"\frac{a}{b}", display=True)
    assert "katex-display" in html and "<mfrac>" in html
    assert r'<annotation encoding="application/x-tex">\frac{a}{b}' in html


@pytest.mark.parametrize("tex", [r"\unknown x", r"\frac{a}", "é = 1"])
def test_a_formula_that_katex_cannot_parse_is_refused(tex: str) -> None:
    with pytest.raises(ValueError, match="KaTeX"):
        draw(tex, display=False)


def test_on_a_page_such_a_formula_is_a_warning_and_shown_as_code(caplog) -> None:
    assert drawn(nodes.math(), r"\unknown <x>", display=False) == r"<code>\unknown &lt;x&gt;</code>"
    assert "KaTeX" in caplog.text


def test_blank_lines_and_double_backslashes_make_lines() -> None:
    assert aligned("a") == "a"
    assert aligned(r"a \\ b") == r"\begin{split}a \\ b\end{split}"
    assert "<mtr>" in draw(aligned("a = b\n\nc = d"), display=True)


def test_a_formula_takes_its_punctuation_along() -> None:
    paragraph = nodes.paragraph()
    paragraph += [nodes.Text("with ("), nodes.math("", "x"), nodes.Text("), and")]
    paragraph += [nodes.math("", "y"), nodes.Text(" z")]
    keep_punctuation(None, paragraph, "page")
    first, second = paragraph.findall(nodes.math)
    assert (first["before"], first["behind"]) == ("(", "),") and "behind" not in second
    texts = [child.astext() for child in paragraph if isinstance(child, nodes.Text)]
    assert texts == ["with ", " and", " z"]
