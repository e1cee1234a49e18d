"""The Python of the folded solutions to a chapter's exercises, as cells that run after its own.

A notebook of the book is executed once in a test session. Its solutions are appended to that
execution, so they run in the state that the chapter leaves, as a reader's would, and without a
second run. The pages show the chapter without them.
"""

from __future__ import annotations

import copy
import re
import textwrap

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

FENCED = re.compile(r"^ *```python\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
BEFORE = "_before = dict(globals())"
# Each solution starts from the chapter: names that the one before has bound are taken back.
AFTER = """
globals().update(_before)
for _name in globals().keys() - _before.keys():
    del globals()[_name]
"""


def exercises(notebook: NotebookNode) -> list[str]:
    """The text of each exercise, with its hint and its solution."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "## Exercises\n" in cell.source:
            after = cell.source.partition("## Exercises\n")[2]
            return re.split(r"^\d+\. ", after, flags=re.MULTILINE)[1:]
    return []


def solutions(notebook: NotebookNode) -> list[str]:
    """The Python of each solution that has some."""
    found = []
    for exercise in exercises(notebook):
        blocks = FENCED.findall(exercise.partition("<summary>Solution</summary>")[2])
        if blocks:
            found.append("\n".join(map(textwrap.dedent, blocks)))
    return found


def with_solutions(notebook: NotebookNode) -> NotebookNode:
    """The notebook with a code cell for each solution at its end."""
    longer = copy.deepcopy(notebook)
    for source in solutions(notebook):
        longer.cells += [new_code_cell(part) for part in (BEFORE, source, AFTER)]
    return longer


def without_solutions(notebook: NotebookNode) -> NotebookNode:
    """The notebook as it was before :func:`with_solutions`, with its outputs."""
    shorter = copy.deepcopy(notebook)
    n_added = 3 * len(solutions(notebook))
    shorter.cells = shorter.cells[: len(shorter.cells) - n_added]
    return shorter
