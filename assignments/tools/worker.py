"""A worker's court for each set, opened once; before it judges anybody it judges the book itself.

The reference answers must pass every check, and answers that return nothing must fail every one.
"""

from __future__ import annotations

import atexit
import re

import torch

from assignments import checks
from assignments.tools.frame import Frame, read_frame
from assignments.tools.judge import Court
from assignments.tools.matching import match
from assignments.tools.nursery import Limits, Nursery
from assignments.tools.reading import Cell
from assignments.tools.records import SandboxError
from assignments.tools.sources import marks, shown

_nurseries: dict[tuple, Nursery] = {}
_courts: dict[tuple, Court] = {}


def nursery(run) -> Nursery:
    """This process' nursery, started at its first use."""
    limits = Limits(int(run.memory_gb * 2**30), isolation=run.isolation)
    if limits not in _nurseries:
        torch.set_num_threads(1)
        one = Nursery(limits)
        one.start()
        atexit.register(one.stop)
        _nurseries[limits] = one
    return _nurseries[limits]


def court(name: str, run) -> Court:
    """The court of a set.

    Raises:
        SandboxError: no sandbox can be started, or the checks are out of order.
    """
    key = name, run
    if key not in _courts:
        try:
            frame = read_frame(name, run.source)
            one = Court(frame, nursery(run), run.factor)
        except Exception as error:
            raise SandboxError(
                f"{name} cannot be set up: {type(error).__name__}: {error}"
            ) from error
        # The reference answers must pass, and answers that return nothing must fail.
        results = one.grade(match(reference(frame), frame))
        wrong = [result for result in results if not result.passed]
        if wrong:
            raise SandboxError(
                f"the reference answer of {name}, {wrong[0].part}, fails: {wrong[0].reason}. "
                "Is this machine too slow (--time-factor), or was the package changed?"
            )
        one.nursery.build(checks.models._MODELS)  # those that its checks have asked for
        passed = [result for result in one.grade(match(empty(frame), frame)) if result.passed]
        if passed:
            raise SandboxError(
                f"an empty answer passes {name}, {passed[0].part}: its check needs a test that "
                "fails where a function returns None"
            )
        _courts[key] = one
    return _courts[key]


def reference(frame: Frame) -> list[Cell]:
    """The set as somebody who knows the answers would hand it in."""
    cells = []
    for cell in frame.cells:
        text = cell.source if marks(cell).get("solution") else shown(cell.source)
        marked = re.compile(r"### (BEGIN|END)")
        lines = [line for line in text.splitlines() if not marked.search(line)]
        cells.append(_cell(cell, "\n".join(lines)))
    return cells


def empty(frame: Frame) -> list[Cell]:
    """The set with functions that return nothing."""
    cells = []
    for cell in frame.cells:
        text = shown(cell.source)
        part = frame.parts.get(marks(cell).get("grade_id", ""))
        if part and not part.written:
            lines = [f"def {name}(*arguments, **options):\n    return None" for name in part.names]
            text = "\n\n\n".join(lines)
        cells.append(_cell(cell, text))
    return cells


def _cell(cell, text: str) -> Cell:
    return Cell(cell.cell_type, text, cell.get("id", ""), marks(cell).get("grade_id", ""))
