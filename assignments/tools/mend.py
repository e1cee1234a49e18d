"""Turn whatever a student handed in into a notebook that nbgrader can grade, and say what had to be mended.

The student version is the frame. From the submission come the answers and the student's own cells, each after the cell it followed;
everything that students are to leave alone is taken from the frame, whatever was changed, doubled or deleted.
"""

from __future__ import annotations

import copy

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from assignments.tools.sources import marks


def mend(text: str, frame: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """The submission in the frame of the student version.

    Args:
        text: the file that was handed in.
        frame: the student version.

    Returns:
        A notebook with every cell of the frame, and what was mended. A file that is no notebook gives the empty frame.
    """
    frame = copy.deepcopy(frame)
    try:
        cells = nbformat.reads(text, as_version=4).cells
        sources = [
            (marks(cell).get("grade_id"), cell.cell_type, str(cell.source)) for cell in cells
        ]
    except Exception as error:  # a broken file can fail in any way
        return frame, [
            f"the file cannot be read as a notebook ({type(error).__name__}); it counts as empty"
        ]
    expected = {marks(cell).grade_id: cell for cell in frame.cells if marks(cell)}
    answers: dict[str, str] = {}
    own: dict[str | None, list[NotebookNode]] = {}
    notes, after = [], None
    for grade_id, kind, source in sources:
        if grade_id in expected:
            if grade_id in answers:
                notes.append(f"{grade_id} is there twice; the first counts")
                continue
            answers[grade_id] = source
            after = grade_id
            if not marks(expected[grade_id]).solution and source != expected[grade_id].source:
                notes.append(f"{grade_id} was changed; the original counts")
        elif kind == "code" and source.strip():
            own.setdefault(after, []).append(new_code_cell(source))
    notes += [f"{grade_id} was missing" for grade_id in expected if grade_id not in answers]
    mended = list(own.get(None, []))
    for cell in frame.cells:
        grade_id = marks(cell).get("grade_id")
        if grade_id and marks(cell).solution and grade_id in answers:
            cell.source = answers[grade_id]
        mended.append(cell)
        mended += own.get(grade_id, []) if grade_id else []
    frame.cells = mended
    return frame, notes
