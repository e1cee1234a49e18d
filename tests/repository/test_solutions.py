"""Solutions to exercises: every exercise has one, and its Python runs after the chapter's."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbmake import pytest_items

from tests.repository.tree import CHAPTERS, relative
from tests.solutions import exercises, solutions, with_solutions, without_solutions

pytestmark = pytest.mark.unit


def chapter(*codes: str) -> nbformat.NotebookNode:
    """A chapter that leaves ``x = 1``, with an exercise for each solution."""
    text = "## Exercises\n"
    for number, code in enumerate(codes, 1):
        indented = code.replace("\n", "\n   ")
        text += f"\n{number}. Why? <details><summary>Solution</summary>So:\n\n"
        text += f"   ```python\n   {indented}\n   ```\n\n   </details>\n"
    return new_notebook(cells=[new_code_cell("x = 1"), new_markdown_cell(text)])


@pytest.mark.parametrize("path", CHAPTERS, ids=relative)
def test_every_python_block_of_the_exercises_is_found_and_compiles(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    found, blocks = solutions(notebook), "".join(exercises(notebook)).count("```")
    assert blocks == 2 * len(found), "one block a solution, none in a hint"
    for source in found:
        compile(source, relative(path), "exec")


@pytest.mark.slow
def test_each_solution_starts_from_the_chapter(tmp_path: Path) -> None:
    notebook = chapter("x = 2\ny = 3", 'assert x == 1 and "y" not in globals()')
    path = tmp_path / "chapter.ipynb"
    nbformat.write(notebook, path)
    # The run that the session puts in the place of nbmake's (conftest.py).
    result = pytest_items.NotebookRun(path, 60, kernel="python3").execute()
    assert result.error is None
    executed = [cell for cell in result.nb.cells if cell.cell_type == "code"]
    assert len(executed) == 7 and all(cell.execution_count for cell in executed)
    assert [cell.source for cell in without_solutions(result.nb).cells] == [
        cell.source for cell in notebook.cells
    ]


@pytest.mark.slow
def test_a_solution_that_fails_fails_the_notebook() -> None:
    notebook = with_solutions(chapter("x = 2\nassert x == 1"))
    with pytest.raises(CellExecutionError, match="AssertionError"):
        NotebookClient(notebook, kernel_name="python3").execute()
