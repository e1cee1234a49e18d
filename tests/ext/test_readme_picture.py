"""The README's picture: it is there, small and described; and it comes out of a run of the kind that the README names."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from book._ext.readme_picture import PICTURE, ROOT, glued_picture, renew

pytestmark = pytest.mark.unit

COLOPHON = "<p>This run: model <code>smollm2</code> (weights ab), profile default, cpu</p>"


def chapter(colophon: str, name: str = "fig") -> new_notebook:
    html = (
        f'<img src="data:image/png;base64,{base64.b64encode(b"pixels").decode()}" alt="A picture">'
    )
    kept = new_output(
        "display_data",
        {"application/papermill.record/text/html": html},
        metadata={"scrapbook": {"name": name}},
    )
    return new_notebook(
        cells=[
            new_code_cell("x", outputs=[kept, new_output("display_data", {"text/html": colophon})])
        ]
    )


def test_the_readme_shows_the_picture_and_says_what_is_in_it() -> None:
    (alt, path), *more = re.findall(
        r"!\[([^\]]*)\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert not more and ROOT / path == PICTURE
    assert len(alt.split()) > 20
    assert 5_000 < PICTURE.stat().st_size < 150_000


def test_the_picture_is_the_figure_that_the_chapter_kept() -> None:
    assert glued_picture(chapter(COLOPHON), "fig") == b"pixels"


@pytest.mark.parametrize(
    "other", [COLOPHON.replace("smollm2", "gpt2"), COLOPHON.replace("default", "smoke")]
)
def test_a_run_of_another_kind_is_refused(other: str) -> None:
    with pytest.raises(ValueError, match="not run on smollm2 in the profile default"):
        glued_picture(chapter(other), "fig")


def test_a_figure_that_was_not_kept_is_named() -> None:
    with pytest.raises(ValueError, match="keeps no figure 'fig'"):
        glued_picture(chapter(COLOPHON, "another"), "fig")


def test_without_results_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make book"):
        renew(tmp_path / "nothing", tmp_path / "picture.webp")
