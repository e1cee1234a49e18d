"""The README's picture: described, light, and from a run of the kind that the README names."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from book._ext.readme_picture import PICTURE, ROOT, glued_picture, renew

pytestmark = pytest.mark.unit

COLOPHON = "<p>This run: model <code>smollm2</code> (fingerprint ab), profile default, cpu</p>"


def chapter(colophon: str, name: str = "fig") -> new_notebook:
    picture = base64.b64encode(b"pixels").decode()
    html = f'<img src="data:image/png;base64,{picture}" alt="A picture">'
    data = {"application/papermill.record/text/html": html}
    kept = new_output("display_data", data, metadata={"scrapbook": {"name": name}})
    shown = new_output("display_data", {"text/html": colophon})
    return new_notebook(cells=[new_code_cell("x", outputs=[kept, shown])])


def test_the_readme_shows_the_picture_and_says_what_is_in_it() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ((alt, path),) = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", readme)
    assert ROOT / path == PICTURE
    assert len(alt.split()) > 20
    assert 5_000 < PICTURE.stat().st_size < 150_000


def test_the_picture_is_the_figure_that_the_chapter_kept() -> None:
    assert glued_picture(chapter(COLOPHON), "fig") == b"pixels"
    with pytest.raises(ValueError, match="keeps no figure 'fig'"):
        glued_picture(chapter(COLOPHON, "another"), "fig")


@pytest.mark.parametrize("change", [("smollm2", "gpt2"), ("default", "smoke")])
def test_a_run_of_another_kind_is_refused(change: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="not run on smollm2 in the profile default"):
        glued_picture(chapter(COLOPHON.replace(*change)), "fig")


def test_without_results_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make book"):
        renew(tmp_path / "nothing", tmp_path / "picture.webp")
