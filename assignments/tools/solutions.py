"""``python -m assignments.tools.solutions``: what to hand out after the deadline.

For each set a notebook with the reference answers and without hidden tests; the rubric and the
common mistakes are at its end. The site does not link this folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell

from assignments.tools.sources import (
    MARKER,
    ROOT,
    SOURCE,
    hand_out_checks,
    read_set,
    regions,
    set_names,
)


def solution(name: str, source: Path = SOURCE) -> nbformat.NotebookNode:
    """A set with its reference answers and rubric, and without hidden tests."""
    notebook = read_set(name, source)
    for cell in notebook.cells:
        if MARKER.search(cell.source):
            kept = [line for line, kind in regions(cell.source) if kind != "HIDDEN TESTS"]
            cell.source = "\n".join(kept).rstrip()
    rubric = ROOT / "assignments" / "rubrics" / f"{name}.md"
    notebook.cells.append(new_markdown_cell(rubric.read_text(encoding="utf-8")))
    return notebook


def write_solutions(out: Path) -> list[Path]:
    """Write every set's solutions into an emptied folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    hand_out_checks(out)
    paths = []
    for name in set_names():
        paths.append(out / f"{name}-solutions.ipynb")
        nbformat.write(solution(name), paths[-1])
    return paths


if __name__ == "__main__":
    for path in write_solutions(ROOT / "_build" / "solutions"):
        print(path)
