"""What the sources hold: the sets, their limits, and the lines that no student may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "assignments" / "source"
CHECKS = ROOT / "assignments" / "checks.py"  # handed out beside each notebook
REGIONS = {"SOLUTION": "solution", "HIDDEN TESTS": "hidden test"}


@dataclass(frozen=True)
class Limits:
    """What one submission of a set may use.

    Attributes:
        cell_seconds: after which a cell is interrupted.
        total_seconds: after which no further cell is run.
    """

    cell_seconds: float
    total_seconds: float

    def times(self, factor: float) -> Limits:
        return Limits(self.cell_seconds * factor, self.total_seconds * factor)


def set_names(source: Path = SOURCE) -> list[str]:
    """The sets, by the names of their folders."""
    return sorted(
        path.parent.name for path in source.glob("*/*.ipynb") if path.stem == path.parent.name
    )


def read_set(name: str, source: Path = SOURCE) -> NotebookNode:
    """The source of a set, with solutions and hidden tests."""
    return nbformat.read(source / name / f"{name}.ipynb", as_version=4)


def limits(notebook: NotebookNode) -> Limits:
    """The limits that a set's own metadata states."""
    return Limits(**notebook.metadata["grading"])


def marks(cell: NotebookNode) -> NotebookNode:
    """nbgrader's metadata of a cell; empty if it has none."""
    return cell.metadata.get("nbgrader", NotebookNode())


def regions(text: str) -> Iterator[tuple[str, str]]:
    """(line, kind) for each line of a cell; kind is "solution", "hidden test" or "". The marks themselves are left out."""
    kind = ""
    for line in text.splitlines():
        for mark, name in REGIONS.items():
            if f"### BEGIN {mark}" in line:
                kind = name
                break
            if f"### END {mark}" in line:
                kind = ""
                break
        else:
            yield line, kind


def shown(text: str) -> str:
    """A cell without its hidden tests and solutions."""
    return "\n".join(line for line, kind in regions(text) if not kind)


def secret_lines(notebook: NotebookNode) -> set[str]:
    """Every line of a solution, a written reference answer or a hidden test that stands nowhere else in the notebook."""
    secret, public = set(), set()
    for cell in notebook.cells:
        written = marks(cell).get("solution") and cell.cell_type == "markdown"
        for line, kind in regions(cell.source):
            (secret if kind or written else public).add(line.strip())
    return {line for line in secret - public if any(character.isalnum() for character in line)}
