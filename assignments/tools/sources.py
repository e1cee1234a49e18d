"""The sources of the problem sets: names, and the lines that no student may see."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "assignments" / "source"
CHECKS = ROOT / "assignments" / "checks"  # the folder that is handed out beside each notebook
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"  # what stands where an answer goes
MARKER = re.compile(r"### (BEGIN|END) (SOLUTION|HIDDEN TESTS)")


def hand_out_checks(folder: Path) -> None:
    """Put the checks into a folder, as notebooks import them."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKS, folder / CHECKS.name, ignore=ignore)


def set_names(source: Path = SOURCE) -> list[str]:
    """The sets, by the names of their folders."""
    notebooks = source.glob("*/*.ipynb")
    return sorted(path.stem for path in notebooks if path.stem == path.parent.name)


def read_set(name: str, source: Path = SOURCE) -> NotebookNode:
    """The source of a set, with solutions and hidden tests.

    Hidden tests in a cell of their own (``part3-hidden``), where the two halves of a check would be
    too long for one, are joined to the check before them, and its points to theirs.
    """
    notebook, cells = nbformat.read(source / name / f"{name}.ipynb", as_version=4), []
    for cell in notebook.cells:
        if marks(cell).get("grade_id", "").endswith("-hidden"):
            cells[-1].source += f"\n{cell.source}"
            marks(cells[-1]).points += marks(cell).points
        else:
            cells.append(cell)
    notebook.cells = cells
    return notebook


def marks(cell: NotebookNode) -> NotebookNode:
    """nbgrader's metadata of a cell; empty if it has none."""
    return cell.metadata.get("nbgrader", NotebookNode())


def regions(text: str) -> Iterator[tuple[str, str]]:
    """(line, kind) of each line of a cell; kind is "SOLUTION", "HIDDEN TESTS" or "".

    The markers themselves are left out.
    """
    kind = ""
    for line in text.splitlines():
        if marker := MARKER.search(line):
            kind = marker[2] if marker[1] == "BEGIN" else ""
        else:
            yield line, kind


def shown(text: str) -> str:
    """A cell without its hidden tests and solutions."""
    return "\n".join(line for line, kind in regions(text) if not kind)


def secret_lines(notebook: NotebookNode) -> set[str]:
    """Lines of solutions, written reference answers and hidden tests that occur nowhere else."""
    secret, public = set(), set()
    for cell in notebook.cells:
        written = marks(cell).get("solution") and cell.cell_type == "markdown"
        for line, kind in regions(cell.source):
            (secret if kind or written else public).add(line.strip())
    return {line for line in secret - public if re.search(r"\w", line)}
