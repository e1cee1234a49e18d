"""The gradebook: one record a submission, marks given by hand, and the tables made of both.

``records/<set>/<student>.json`` is written by the grader alone and holds all that is known of a
submission; ``marks.csv`` is the teacher's: rows are added to it and never changed or taken away.
Every table is made again from these two.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from assignments.tools.frame import Frame
from assignments.tools.matching import Answer
from assignments.tools.reading import text_of
from assignments.tools.roster import Roster

MARK_COLUMNS = ["set", "student", "part", "points", "of", "comment", "answer"]


@dataclass
class Record:
    """One submission.

    Attributes:
        digest: of the file and of everything that grades it.
        passed: by part of code; None where a person decides.
        reasons: by part, for the student.
        answers: by part.
        notes: for the student and the teacher.
        suspicious: for the teacher alone.
        references: by part, what the student's own case gives, for the teacher alone.
    """

    set: str
    student: str
    file: str = ""
    digest: str = ""
    passed: dict[str, bool | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    answers: dict[str, dict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    suspicious: list[str] = field(default_factory=list)
    references: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Row:
    """A student's standing in one set.

    Attributes:
        parts: points by part; None where an answer waits to be marked.
        comments: of the teacher, by part.
    """

    record: Record
    total: float
    parts: dict[str, float | None]
    comments: dict[str, str]

    @property
    def points(self) -> float:
        return sum(points or 0 for points in self.parts.values())

    @property
    def to_mark(self) -> int:
        return sum(points is None for points in self.parts.values())


def slug(name: str) -> str:
    """A file name for a student: readable, and another one for every other student."""
    plain = re.sub(r"[^\w.-]", "_", name)[:60].strip(".")
    if plain == name and name == name.lower() and name.isascii():
        return name
    return f"{plain.lower()}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def digest_of(answer: dict) -> str:
    """A short name of what was answered, by which a later change is noticed."""
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()[:8]


def write(path: Path, text: str) -> None:
    """Replace a file in one step: whoever reads it sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="")
    os.replace(part, path)


def cell(value: object) -> str:
    """A value as a spreadsheet takes it: never as a formula."""
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return f"'{text}" if re.match(r"[=+@\t\r]|-\D", text) else text


class Gradebook:
    """What is known of a class, in one folder.

    Attributes:
        problems: what is wrong with ``marks.csv``, in words.
    """

    def __init__(self, folder: Path, frames: dict[str, Frame], roster: Roster) -> None:
        self.folder, self.frames, self.roster = folder, frames, roster
        self.problems: list[str] = []
        self.records: dict[tuple[str, str], Record] = {}
        for path in sorted((folder / "records").glob("*/*.json")):
            try:
                record = Record(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError, OSError):
                continue  # cut off or of an older version: graded again
            self.records[record.set, record.student] = record

    def put(self, record: Record) -> None:
        """Store a record and write the tables again."""
        self.records[record.set, record.student] = record
        place = self.folder / "records" / re.sub(r"\W", "_", record.set)
        write(place / f"{slug(record.student)}.json", json.dumps(asdict(record)))

    def rows(self) -> list[Row]:
        """Where everybody stands, marks included, and a row for who handed in nothing."""
        marks, rows = self._marks(), []
        for key in sorted(self.records):
            rows.append(self._row(self.records[key], marks))
        sets = sorted({name for name, _ in self.records} & set(self.frames))
        for name in sets:
            for student in self.roster.people:
                if (name, student) not in self.records:
                    rows.append(Row(Record(name, student, notes=["nothing handed in"]), 0, {}, {}))
        return rows

    def _row(self, record: Record, marks: dict) -> Row:
        frame = self.frames.get(record.set)
        row = Row(record, frame.total if frame else 0, {}, {})
        for part in frame.parts.values() if frame else ():
            passed = record.passed.get(part.id)
            row.parts[part.id] = None if passed is None else part.points * passed
            mark = marks.get((record.set, record.student, part.id))
            if mark:
                row.comments[part.id] = mark["comment"] or ""
                points = self._points(mark, part.points)
                row.parts[part.id] = row.parts[part.id] if points is None else points
        return row

    def _points(self, mark: dict, most: float) -> float | None:
        """Points of a row of ``marks.csv``; None if there are none yet, or none that can be."""
        text = (mark["points"] or "").strip().replace(",", ".")
        if not text:
            return None
        try:
            points = float(text)
        except ValueError:
            points = -1.0
        if 0 <= points <= most:
            return points
        place = f"{mark['set']} {mark['student']} {mark['part']}"
        self.problems.append(f"marks.csv, {place}: {text!r} is no number from 0 to {most:g}")
        return None

    def _marks(self) -> dict[tuple[str, str, str], dict]:
        """The rows of ``marks.csv``; answers that wait and have no row get one."""
        path, self.problems = self.folder / "marks.csv", []
        old = (
            list(csv.DictReader(text_of(path.read_bytes())[0].splitlines()))
            if path.exists()
            else []
        )
        marks = {}
        for mark in old:
            values = {name: mark.get(name) or "" for name in MARK_COLUMNS}
            student = values["student"].removeprefix("'")
            marks[values["set"], student, values["part"]] = values
        new = []
        for (name, student), record in self.records.items():
            for part in self.frames[name].parts.values() if name in self.frames else ():
                answer = digest_of(record.answers.get(part.id, {}))
                mark = marks.get((name, student, part.id))
                if mark is None and record.passed.get(part.id) is None:
                    values = [name, student, part.id, "", f"{part.points:g}", "", answer]
                    mark = dict(zip(MARK_COLUMNS, values))
                    marks[name, student, part.id] = mark
                    new.append(mark | {"student": cell(student)})
                elif mark and mark["points"] and mark["answer"] not in ("", answer):
                    place = f"{name} {student} {part.id}"
                    self.problems.append(f"{place}: the answer changed after it was marked")
        if new or not path.exists():
            # Appended to what is there, byte by byte.
            if not path.exists():
                write(path, ",".join(MARK_COLUMNS) + "\r\n")
            with path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, MARK_COLUMNS).writerows(new)
        return marks

    def write_tables(self) -> list[Row]:
        """Write ``grades.csv`` and the exports, and return the rows."""
        rows = self.rows()
        parts = sorted({part for row in rows for part in row.parts})
        head = ["set", "student", "name", "section", "points", "total", "to_mark", *parts]
        head += ["notes", "suspicious", "file", "seconds"]
        table = [head]
        for row in rows:
            one, person = row.record, self.roster.people.get(row.record.student, {})
            line = [one.set, one.student, person.get("name"), person.get("section")]
            line += [float(row.points), float(row.total), row.to_mark]
            line += [
                "to mark" if part in row.parts and row.parts[part] is None else row.parts.get(part)
                for part in parts
            ]
            line += ["; ".join(one.notes), "; ".join(one.suspicious), one.file, one.seconds]
            table.append(line)
        self._table("grades.csv", table)
        self._canvas(rows)
        self._moodle(rows)
        return rows

    def _canvas(self, rows: list[Row]) -> None:
        """The table that Canvas imports; a set counts when nothing of it waits to be marked."""
        sets = sorted({row.record.set for row in rows} & set(self.frames))
        table = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *sets]]
        table.append(["Points Possible", "", "", "", "", *(self.frames[one].total for one in sets)])
        by_student: dict[str, dict[str, Row]] = {}
        for row in rows:
            by_student.setdefault(row.record.student, {})[row.record.set] = row
        for student, theirs in sorted(by_student.items()):
            person = self.roster.people.get(student, {})
            line = [person.get("name") or student, person.get("lms_id"), student, student]
            line.append(person.get("section"))
            for name in sets:
                row = theirs.get(name)
                line.append(float(row.points) if row and row.parts and not row.to_mark else None)
            table.append(line)
        self._table("canvas.csv", table)

    def _moodle(self, rows: list[Row]) -> None:
        """Tables in the form of Moodle's offline grading worksheet, one a set."""
        head = ["Identifier", "Full name", "Email address", "Grade", "Maximum grade"]
        for name in sorted({row.record.set for row in rows} & set(self.frames)):
            table = [[*head, "Feedback comments"]]
            for row in [one for one in rows if one.record.set == name and one.parts]:
                person = self.roster.people.get(row.record.student, {})
                number = person.get("lms_id") or row.record.student.rpartition("_")[2]
                line = [f"Participant {number}", person.get("name") or row.record.student]
                line += [person.get("email"), None if row.to_mark else float(row.points), row.total]
                waits = f"{row.to_mark} answers are still to be marked. " if row.to_mark else ""
                table.append([*line, waits + "; ".join(row.record.notes)])
            self._table(f"moodle-{name}.csv", table)

    def _table(self, name: str, table: Iterable[list]) -> None:
        lines = []
        for line in table:
            lines.append(",".join('"' + cell(one).replace('"', '""') + '"' for one in line))
        write(self.folder / name, "\r\n".join(lines) + "\r\n")


def answer_of(answer: Answer) -> dict:
    """An answer as a record keeps it."""
    return {"text": answer.text, "images": answer.images}
