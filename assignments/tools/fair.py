"""What a fair person would ask before an answer is missing or wrong: is it in an older file?"""

from __future__ import annotations

import re

from assignments.tools.frame import Frame
from assignments.tools.matching import Answer, Plan, match
from assignments.tools.reading import Unreadable, read_cells
from assignments.tools.submissions import Handed


def with_older(plan: Plan, one: Handed, frame: Frame) -> tuple[Plan, list[str]]:
    """The plan, with answers that stand only in what the student handed in before, and notes.

    A file without any answer counts for nothing; of a part that is answered in an older file alone
    a person decides.
    """
    notes = []
    for older in one.older:
        try:
            other = match(read_cells(older.data)[0], frame)
        except Unreadable:
            continue
        if any(other.answers.values()) and not any(plan.answers.values()):
            plan = other
            notes.append(f"no answer in the newest file; {older.place} was graded instead")
        for part, answer in other.answers.items():
            if answer and not plan.answers[part]:
                answer.by_hand = f"answered in {older.place} alone: a person reads it"
                plan.answers[part] = answer
    return plan, notes


def wrong_case(answers: dict[str, Answer], student: str) -> list[str]:
    """A note if an open part was done for the case of another id."""
    for answer in answers.values():
        told = re.search(r"^STUDENT\s*=\s*[\"'](.*?)[\"']", answer.text, re.MULTILINE)
        if told and told[1].strip().casefold() != student.casefold():
            return [f"STUDENT is {told[1]!r}: the case is that of another id than {student!r}"]
    return []
