"""``python -m assignments.tools.release``: the student versions, into ``_build/assignments``.

The student version of a set is a folder with its notebook and the folder ``checks``. The sources
keep to nbgrader's format: ``nbgrader generate_assignment`` makes the same of them, but leaves the
cells with hidden tests of their own (``part…-hidden``) in place, empty.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat

from assignments.tools.publish import publish
from assignments.tools.sources import (
    ROOT,
    SOURCE,
    STUB,
    hand_out_checks,
    marks,
    read_set,
    regions,
    secret_lines,
    set_names,
)

ANSWER = "YOUR ANSWER HERE"


def student_version(name: str, source: Path = SOURCE) -> nbformat.NotebookNode:
    """A set without solutions and hidden tests.

    Raises:
        RuntimeError: a secret line is left in it.
    """
    notebook = read_set(name, source)
    secrets, left = secret_lines(notebook), set()
    for cell in notebook.cells:
        if marks(cell).get("solution") and cell.cell_type == "markdown":
            cell.source = ANSWER
        elif marks(cell):
            cell.source = without_secrets(cell.source)
        if marks(cell):
            cell.metadata["deletable"] = False
        if marks(cell).get("locked"):
            cell.metadata["editable"] = False
        left |= secrets & set(map(str.strip, cell.source.splitlines()))
    if left:
        raise RuntimeError(f"the student version of {name} would show {sorted(left)[0]!r}")
    return notebook


def without_secrets(text: str) -> str:
    """A cell with a stub in place of its solution, and without hidden tests."""
    lines, before = [], ""
    for line, kind in regions(text):
        if kind == "SOLUTION" and before != "SOLUTION":
            indent = re.match(r"\s*", line)[0]
            lines += [indent + one for one in STUB.splitlines()]
        elif not kind:
            lines.append(line)
        before = kind
    return "\n".join(lines).rstrip()


def release(out: Path, source: Path = SOURCE) -> list[Path]:
    """Write the student version of every set into an emptied folder, and return the notebooks."""
    shutil.rmtree(out, ignore_errors=True)
    notebooks = []
    for name in set_names(source):
        path = out / name / f"{name}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(student_version(name, source), path)
        hand_out_checks(path.parent)
        notebooks.append(path)
    return notebooks


if __name__ == "__main__":
    folder = ROOT / "_build" / "assignments"
    for notebook in release(folder):
        print(f"student version: {notebook.parent}")
    if page := publish(folder, ROOT / "_build" / "html"):
        print(f"linked from {page}")
