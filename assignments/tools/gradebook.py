"""The gradebook: one record a submission, marks given by hand, and the tables made of both.

``records/<set>/<student>.json`` is written by the grader alone and holds all that is known of a
submission; ``marks.csv`` is the teacher's: rows are added to it and never changed or taken away.
Every table is made again from these two.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict
from pathlib import Path

from assignments.tools import tables
from assignments.tools.frame import Frame
from assignments.tools.reading import text_of
from assignments.tools.records import Record, Row, digest_of, slug, write
from assignments.tools.roster import Roster, read_table

MARK_COLUMNS = ["set", "student", "part", "points", "of", "comment", "answer"]


class Gradebook:
    """What is known of a class, in one folder.

    Attributes:
        problems: what is wrong with ``marks.csv``, in words.
        waiting: files that are still to be graded, by set and student.
    """

    def __init__(self, folder: Path, frames: dict[str, Frame], roster: Roster) -> None:
        self.folder, self.frames, self.roster = folder, frames, roster
        self.problems: list[str] = []
        self.waiting: dict[tuple[str, str], str] = {}
        self.records: dict[tuple[str, str], Record] = {}
        for path in sorted((folder / "records").glob("*/*.json")):
            try:
                record = Record(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError, OSError):
                continue  # cut off or of an older version: graded again
            self.records[record.set, record.student] = record

    def put(self, record: Record) -> None:
        """Store a record."""
        self.waiting.pop((record.set, record.student), None)
        self.records[record.set, record.student] = record
        place = self.folder / "records" / re.sub(r"\W", "_", record.set)
        write(place / f"{slug(record.student)}.json", json.dumps(asdict(record)))

    def rows(self) -> list[Row]:
        """Where everybody stands, marks included.

        Who handed in nothing has a row too, and who handed in what is not graded yet.
        """
        marks, rows = self._marks(), []
        for (name, student), place in self.waiting.items():
            if (name, student) not in self.records:
                notes = ["handed in, not graded yet"]
                rows.append(Row(Record(name, student, place, notes=notes), 0, {}, {}))
        for key in sorted(self.records):
            rows.append(self._row(self.records[key], marks))
        sets = sorted({name for name, _ in self.records} & set(self.frames))
        for name in sets:
            for student in self.roster.people:
                if (name, student) not in self.records and (name, student) not in self.waiting:
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
        if not path.exists():
            write(path, ",".join(MARK_COLUMNS) + "\r\n")
        text, unusual = text_of(path.read_bytes())
        table, marks = read_table(text), {}
        for mark in table:
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
                    new.append(mark | {"student": tables.cell(student)})
                elif mark and mark["points"] and mark["answer"] not in ("", answer):
                    place = f"{name} {student} {part.id}"
                    self.problems.append(f"{place}: the answer changed after it was marked")
        if new:
            # Appended to what is there, in its form; only another encoding is changed.
            if unusual or not text.endswith("\n"):
                write(path, text + ("" if text.endswith("\n") else "\r\n"))
            columns = [name for name in table.fieldnames if name]
            with path.open("a", encoding="utf-8", newline="") as file:
                form = {"delimiter": table.reader.dialect.delimiter, "extrasaction": "ignore"}
                csv.DictWriter(file, columns, **form).writerows(new)
        return marks

    def write_tables(self) -> list[Row]:
        """Write ``grades.csv`` and the exports, and return the rows."""
        rows = self.rows()
        people = self.roster.people
        tables.write_table(self.folder / "grades.csv", tables.grades(rows, people))
        tables.write_table(self.folder / "canvas.csv", tables.canvas(rows, people))
        for name in sorted({row.record.set for row in rows} & set(self.frames)):
            theirs = [row for row in rows if row.record.set == name and row.parts]
            path = self.folder / f"moodle-{name}.csv"
            tables.write_table(path, tables.moodle(theirs, people))
        return rows
