"""Tables for people and for learning platforms, none of whose cells is a formula."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from assignments.tools.records import Row, write

People = dict[str, dict[str, str]]  # the roster, by id


def cell(value: object) -> str:
    """A value as a spreadsheet takes it: never as a formula."""
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return f"'{text}" if re.match(r"[=+@\t\r]|-\D", text) else text


def write_table(path: Path, table: Iterable[list]) -> None:
    """Write a table as CSV, every cell quoted."""
    lines = []
    for line in table:
        lines.append(",".join('"' + cell(one).replace('"', '""') + '"' for one in line))
    write(path, "\r\n".join(lines) + "\r\n")


def grades(rows: list[Row], people: People) -> Iterable[list]:
    """Everything, a row for each student and set."""
    parts = sorted({part for row in rows for part in row.parts})
    yield [
        *("set", "student", "name", "section", "points", "total", "to_mark"),
        *parts,
        *("notes", "suspicious", "file", "seconds"),
    ]
    for row in rows:
        one, person = row.record, people.get(row.record.student, {})
        line = [one.set, one.student, person.get("name"), person.get("section")]
        line += [float(row.points), float(row.total), row.to_mark]
        for part in parts:
            waits = part in row.parts and row.parts[part] is None
            line.append("to mark" if waits else row.parts.get(part))
        yield [*line, "; ".join(one.notes), "; ".join(one.suspicious), one.file, one.seconds]


def lms_number(row: Row, person: dict[str, str]) -> str:
    """The number by which a platform knows a student: that in the file's name, else the roster's.

    Moodle numbers participants anew for each assignment, so the name of the file goes first.
    """
    told = re.search(r"_(\d+)_(?:\d+_|assignsubmission)", row.record.file)
    return told[1] if told else person.get("lms_id", "")


def canvas(rows: list[Row], people: People) -> Iterable[list]:
    """The table that Canvas imports; a set counts when nothing of it waits to be marked."""
    totals = {row.record.set: row.total for row in rows if row.parts}
    yield ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *totals]
    yield ["Points Possible", "", "", "", "", *totals.values()]
    points, numbers = {}, {}
    for row in rows:
        student, theirs = row.record.student, points.setdefault(row.record.student, {})
        numbers[student] = people.get(student, {}).get("lms_id") or lms_number(row, {})
        theirs[row.record.set] = float(row.points) if row.parts and not row.to_mark else None
    for student, theirs in sorted(points.items()):
        person = people.get(student, {})
        line = [person.get("name") or student, numbers[student], student, student]
        yield [*line, person.get("section"), *(theirs.get(name) for name in totals)]


def moodle(rows: list[Row], people: People) -> Iterable[list]:
    """One set in the form of Moodle's offline grading worksheet."""
    head = ["Identifier", "Full name", "Email address", "Grade", "Maximum grade"]
    yield [*head, "Feedback comments"]
    for row in rows:
        person = people.get(row.record.student, {})
        number = lms_number(row, person) or row.record.student
        line = [f"Participant {number}", person.get("name") or row.record.student]
        line += [person.get("email"), None if row.to_mark else float(row.points), row.total]
        waits = f"{row.to_mark} answers are still to be marked. " if row.to_mark else ""
        yield [*line, waits + "; ".join(row.record.notes)]
