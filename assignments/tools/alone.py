"""Check a part in a sandbox of its own that never had the book's function of this kind.

Whether an answer calls the book's own function cannot be asked where student code has run: it may
have changed whatever answers. So a fresh sandbox runs the cells of the set, loses these functions,
and only then runs the student's cells; what passes there was written out.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from assignments.tools.frame import Part, bound, parse
from assignments.tools.matching import Step
from assignments.tools.remote import Result
from assignments.tools.session import Lost

if TYPE_CHECKING:
    from assignments.tools.judge import Court

QUICK = 1.0  # seconds; slower cells run again only if they define what the answer needs
BY_HAND = (
    "right in your notebook, but not where the book's own function is taken away: a person reads it"
)
CALLED = "calls the book's own"


def check(court: Court, part: Part, space: dict) -> Result | None:
    """The result of a part's check without the book's functions that it is to do without.

    Returns:
        None if this decides nothing: it fails, but not because such a function was called.
    """
    before = court.session, court.check_left, court.left
    court.session, court.check_left = court.nursery.session(), court.cell_seconds
    try:
        _prepare(court, part)
        here = court.stand_ins(part, space)
        for stage in ("visible", "hidden"):
            if fault := court.half(part, stage, here):
                return fault if CALLED in fault.reason else None
        return court.passed(part, here)
    except Lost:
        return None
    finally:
        court.session.end()
        court.session, court.check_left, court.left = before


def _prepare(court: Court, part: Part) -> None:
    """Run the cells that ran before the check: first the set's, then the student's."""
    given = [step for step, _ in court.done if step.kind == "given"]
    for step in given:
        court.session.ask("given", court.cell_seconds, source=step.source)
    court.session.ask("take_away", court.cell_seconds, forbidden=part.forbidden)
    for step in again(court.done, part.id):
        court.session.ask("cell", court.cell_seconds, source=step.source)


def again(done: list[tuple[Step, float]], part: str) -> list[Step]:
    """The student's cells that have to run for a part: the quick ones, and what it needs."""
    theirs = [(step, seconds) for step, seconds in done if step.kind != "given"]
    chosen, names = set(), set()
    for number, (step, seconds) in enumerate(theirs):
        if seconds < QUICK or (step.kind in ("answer", "alias") and step.label == part):
            chosen.add(number)
            names |= _used(step.source)
    # A cell that defines what a chosen one uses is chosen too, until nothing is added.
    while True:
        more = set()
        for number in set(range(len(theirs))) - chosen:
            if names & set(bound(theirs[number][0].source)):
                more.add(number)
        if not more:
            return [theirs[number][0] for number in sorted(chosen)]
        chosen |= more
        for number in more:
            names |= _used(theirs[number][0].source)


def _used(source: str) -> set[str]:
    tree = parse(source)
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} if tree else set()
