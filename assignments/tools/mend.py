"""Turn whatever was handed in into a notebook that nbgrader can grade, and note what was wrong.

The student version is the frame. Answers and added cells come from the submission, each added cell
after the cell that it followed; everything else comes from the frame, whatever was changed,
duplicated or deleted.
"""

from __future__ import annotations

import copy

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from assignments.tools.sources import marks


def mend(text: str, frame: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """A submission in the frame of the student version.

    Args:
        text: the file that was handed in.
        frame: the student version.

    Returns:
        A notebook with every cell of the frame, and notes on what was changed. If the file cannot
        be read as a notebook: the frame without answers.
    """
    frame = copy.deepcopy(frame)
    try:
        submitted = []
        for cell in nbformat.reads(text, as_version=4).cells:
            submitted.append((marks(cell).get("grade_id"), cell.cell_type, str(cell.source)))
    except Exception as error:  # a damaged file can fail in any way
        kind = type(error).__name__
        return frame, [f"the file cannot be read as a notebook ({kind}); it counts as empty"]

    # Sort the submitted cells into the frame's own and added ones.
    expected = {marks(cell).grade_id: cell for cell in frame.cells if marks(cell)}
    sources: dict[str, str] = {}
    added: dict[str | None, list[NotebookNode]] = {}
    notes, after = [], None
    for grade_id, kind, source in submitted:
        if grade_id in sources:
            notes.append(f"{grade_id} is there twice; the first counts")
        elif grade_id in expected:
            sources[grade_id], after = source, grade_id
            if not marks(expected[grade_id]).solution and source != expected[grade_id].source:
                notes.append(f"{grade_id} was changed; the original counts")
        elif kind == "code" and source.strip():
            added.setdefault(after, []).append(new_code_cell(source))
    notes += [f"{grade_id} was missing" for grade_id in expected if grade_id not in sources]

    # Put the answers and the added cells into the frame.
    cells = list(added.get(None, []))
    for cell in frame.cells:
        grade_id = marks(cell).get("grade_id")
        if grade_id in sources and marks(cell).solution:
            cell.source = sources[grade_id]
        cells += [cell, *(added.get(grade_id, []) if grade_id else [])]
    frame.cells = cells
    return frame, notes
