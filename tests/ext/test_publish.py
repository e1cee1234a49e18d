"""With a public address a site gets what belongs to one; without, nothing."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

pytestmark = pytest.mark.unit
BASE = "https://example.org/books/steering"  # in a sub-folder, no slash at the end
FILES = {"index.md": "# Home\n\n```{toctree}\nfolder/page\n```\n", "folder/page.md": "# A page\n"}


def built(tmp_path: Path, **settings) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    settings = {"extensions": ["myst_parser", "book._ext.publish"], "project": "Book", **settings}
    where = [tmp_path / "source", None, tmp_path / "out", tmp_path / "trees"]
    with docutils_namespace():
        Sphinx(*where, "html", confoverrides=settings, status=None).build()
    return tmp_path / "out"


def test_a_site_with_an_address_has_a_map_a_card_and_a_page_for_what_is_missing(tmp_path):
    out = built(tmp_path, html_baseurl=BASE)
    places = ElementTree.parse(out / "sitemap.xml").getroot().findall("{*}url/{*}loc")
    assert [place.text for place in places] == [f"{BASE}/folder/page.html", f"{BASE}/index.html"]
    page = BeautifulSoup((out / "folder" / "page.html").read_text("utf-8"), "html.parser")
    assert page.select_one("meta[property='og:url']")["content"] == f"{BASE}/folder/page.html"
    picture = page.select_one("meta[property='og:image']")["content"]
    assert picture == f"{BASE}/_static/result.webp"
    assert page.select_one("link[rel=canonical]")["href"] == f"{BASE}/folder/page.html"
    missing = BeautifulSoup((out / "404.html").read_text("utf-8"), "html.parser")
    assert missing.select_one("a")["href"] == "/books/steering/index.html"


def test_a_site_without_one_has_none_of_it(tmp_path):
    out = built(tmp_path)
    assert not (out / "sitemap.xml").exists() and not (out / "404.html").exists()
    text = (out / "folder" / "page.html").read_text("utf-8")
    assert "og:" not in text and "canonical" not in text
