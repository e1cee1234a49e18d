"""What the pages' own Sphinx extension makes: formulae as HTML with MathML, code without mark-up that shows nothing."""

from __future__ import annotations

import io

import pytest
from docutils import nodes
from pygments.lexers import PythonLexer

from book._ext.katex import LightFormatter, aligned, draw, drawn, keep_punctuation

pytestmark = pytest.mark.unit


def test_a_formula_is_drawn_with_mathml_and_its_tex() -> None:
    html = draw(r"\frac{a}{b}", display=True)
    assert (
        "katex-display" in html
        and "<mfrac>" in html
        and r'<annotation encoding="application/x-tex">\frac{a}{b}' in html
    )


@pytest.mark.parametrize("tex", [r"\unknown x", r"\frac{a}", "é = 1"])
def test_a_formula_that_cannot_be_read_is_refused(tex: str) -> None:
    with pytest.raises(ValueError, match="KaTeX"):
        draw(tex, display=False)


def test_on_a_page_it_stands_as_code_and_is_warned_of(caplog) -> None:
    assert drawn(nodes.math(), r"\unknown <x>", display=False) == r"<code>\unknown &lt;x&gt;</code>"


def test_lines_and_blank_lines_make_lines() -> None:
    assert aligned("a") == "a"
    assert aligned(r"a \\ b") == r"\begin{split}a \\ b\end{split}"
    assert "<mtr>" in draw(aligned("a = b\n\nc = d"), display=True)


def test_a_formula_takes_its_punctuation_along() -> None:
    paragraph = nodes.paragraph(
        "",
        "",
        nodes.Text("with ("),
        nodes.math("", "x"),
        nodes.Text("), and"),
        nodes.math("", "y"),
        nodes.Text(" z"),
    )
    document = nodes.container("", paragraph)
    keep_punctuation(None, document, "page")
    first, second = document.findall(nodes.math)
    assert (first["before"], first["behind"]) == ("(", "),") and "behind" not in second
    assert [str(child) for child in paragraph if isinstance(child, nodes.Text)] == [
        "with ",
        " and",
        " z",
    ]


def test_code_has_no_mark_up_for_what_no_style_colours() -> None:
    out = io.StringIO()
    LightFormatter().format(PythonLexer().get_tokens("for name in (1, 'b'): pass"), out)
    html = out.getvalue()
    assert (
        '<span class="k">for</span>' in html and 'class="n"' not in html and 'class="p"' not in html
    )
