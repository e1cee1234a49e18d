"""The texts that searches from disk take their excerpts from."""

from __future__ import annotations

import pytest

from book._ext.search_texts import text_of

pytestmark = pytest.mark.unit


def test_a_text_keeps_words_apart_and_sections_with_their_ids_and_nothing_else():
    html = """<main role="main"><article><section class="x" id="a"><h1>One<a class="headerlink"
    >#</a></h1><script>no()</script><dl><dt>Word</dt><dd>is <b>5</b> &lt; 6</dd></dl>
    <section id="b"><h2>Two</h2></section></section></article></main><p>foot</p>"""
    expected = '<section id="a">One Word is 5 &lt; 6 <section id="b">Two </section></section>'
    assert text_of(html) == expected
