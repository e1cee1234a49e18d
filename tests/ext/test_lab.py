"""Notebooks read well in JupyterLab, and come back from it as they were."""

from __future__ import annotations

import asyncio
import json
import re
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from book._ext.lab import BookContents, shown, stored
from tests.repository.tree import BOOK, CHAPTERS, NOTEBOOKS, relative

pytestmark = pytest.mark.unit

PROSE = """# Try

:::{in-short}
- AS-1 holds in part: It is {glue:text}`share:.0%` of {glue:text}`n` for {glue:text}`who`.
- measured: As {cite:t}`stoehr2024activation` say
  {cite:p}`nanda2023attribution,elhage2021mathematical`.
:::

See {doc}`one-prompt`, {doc}`that page <../notation>` and {numref}`fig-drawn`. {numref}`fig-later`
and equation {eq}`of-another` follow.

1. Try. <details><summary>Hint</summary>Think of {glue:text}`n`.</details>
"""


def glued(name: str, value: object) -> dict:
    prefix = "application/papermill.record/"
    data = {f"{prefix}text/plain": repr(value)}
    note = {"scrapbook": {"name": name, "mime_prefix": prefix}}
    return new_output("display_data", data, metadata=note)


def figure(name: str) -> dict:
    return new_code_cell("draw()", metadata={"mystnb": {"figure": {"name": name}}})


def notebook() -> dict:
    """Two numbers are known from outputs, one word is not."""
    numbers = new_code_cell("glue()", outputs=[glued("share", 0.256), glued("n", 7)])
    cells = [figure("fig-drawn"), numbers, new_markdown_cell(PROSE), figure("fig-later")]
    return new_notebook(cells=cells)


def test_a_cell_is_shown_in_words_that_jupyterlab_knows() -> None:
    content = notebook()
    shown(content, BOOK / "activation-scaling")
    text, metadata = content.cells[2].source, content.cells[2].metadata
    for piece in (
        ":::{admonition} In short",
        '*In a run where AS-1 comes out as “holds in part”:* It is {eval}`glued["share:.0%"]`',
        "As [Stoehr et al. (2024)](https://doi.org/10.18653/v1/2024.findings-emnlp.479) say\n  (",
        "See [One prompt, a few scalars](one-prompt.ipynb), [that page](../notation.md)",
        "and the figure above. The figure below",
        "1. Try.\n\n   :::{admonition} Hint\n   :class: dropdown\n   Think of",
    ):
        assert piece in text
    values = [one["result"]["data"]["text/plain"] for one in metadata["user_expressions"]]
    assert values == ["26%", "7", "…", "7"]


def test_an_equation_of_another_notebook_is_a_link() -> None:
    content = new_notebook(cells=[new_markdown_cell("# Try\n\nAs equation {eq}`bias-eq-edit`.")])
    shown(content, BOOK / "one-ruler")
    place = "../observable-propagation/edits.ipynb"
    link = f"[Which edits can close a gap?]({place})"
    assert content.cells[0].source.endswith(f"equation `bias-eq-edit` in {link}.")


def test_what_is_nowhere_stays_as_it_is() -> None:
    text = "# Try\n\n{doc}`nowhere`, {cite:t}`nobody2024` and {eq}`nothing`."
    content = new_notebook(cells=[new_markdown_cell(text)])
    shown(content, BOOK / "one-ruler")
    assert content.cells[0].source == text
    stored(content)
    assert content.cells[0].source == text and not content.cells[0].metadata


def test_what_the_reader_changed_is_kept_and_all_else_put_back() -> None:
    content = notebook()
    shown(content, BOOK / "activation-scaling")
    content.cells[2].source = content.cells[2].source.replace("# Try", "# Tried")
    stored(content)
    assert content.cells[2].source == PROSE.replace("# Try", "# Tried")
    assert not content.cells[2].metadata


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_every_notebook_comes_back_as_it_was(path: Path) -> None:
    saved = json.loads(path.read_text(encoding="utf-8"))
    for cell in saved["cells"]:
        cell["source"] = "".join(cell["source"])
    content = deepcopy(saved)
    shown(content, path.parent)
    prose = [cell["source"] for cell in content["cells"] if cell["cell_type"] == "markdown"]
    left = re.findall(r"\{[\w:]+\}`|\{in-short\}|</?details>", "\n".join(prose))
    assert set(left) <= {"{eval}`", "{eq}`", "{numref}`"}
    assert path not in CHAPTERS or "{eval}`" in left
    stored(content)
    assert content == saved


def test_the_server_shows_and_stores_a_notebook(tmp_path: Path) -> None:
    path = tmp_path / "try.ipynb"
    (tmp_path / "one-prompt.md").write_text("# One prompt\n", encoding="utf-8")
    (tmp_path.parent / "notation.md").write_text("# Notation\n", encoding="utf-8")
    nbformat.write(notebook(), path)
    before = path.read_text(encoding="utf-8")

    async def open_and_save() -> str:
        contents = BookContents(root_dir=str(tmp_path))
        model = await contents.get("try.ipynb")
        seen = model["content"]["cells"][2]["source"]
        await contents.save(model, "try.ipynb")
        return seen

    assert "{eval}`" in asyncio.run(open_and_save())
    assert nbformat.reads(path.read_text(encoding="utf-8"), 4) == nbformat.reads(before, 4)
