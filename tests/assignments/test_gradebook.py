"""The gradebook: cumulative, with marks given by hand, and safe to show."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from assignments.tools.feedback import marking_page, student_page
from assignments.tools.frame import read_frame
from assignments.tools.gradebook import Gradebook
from assignments.tools.integrity import fingerprint, similar, suspicious
from assignments.tools.records import Record, slug
from assignments.tools.roster import Roster
from assignments.tools.sources import set_names

pytestmark = pytest.mark.unit
FRAMES = {name: read_frame(name) for name in set_names()}
EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'
ROSTER = Roster(
    {n: {"id": n, "name": f"Student {n}", "section": "A", "lms_id": f"9{n}"} for n in "12"}
)


def record(student: str, **more) -> Record:
    passed = {part.id: None if part.written else True for part in FRAMES["ps1"].parts.values()}
    answers = {"written6": {"text": EVIL, "images": []}}
    return Record("ps1", student, passed=passed, answers=answers, **more)


def book(folder: Path, *records: Record) -> Gradebook:
    one = Gradebook(folder, FRAMES, ROSTER)
    for each in records:
        one.put(each)
    return one


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_stay_when_one_more_file_is_graded(tmp_path: Path) -> None:
    book(tmp_path, record("1"), record("ada")).write_tables()
    rows = book(tmp_path, record("zoe")).write_tables()
    assert [row.record.student for row in rows] == ["1", "ada", "zoe", "2"]
    assert rows[-1].record.notes == ["nothing handed in"]
    assert {row["student"] for row in table(tmp_path / "grades.csv")} == {"1", "2", "ada", "zoe"}


def test_a_run_that_is_cut_off_does_not_say_that_nothing_was_handed_in(tmp_path: Path) -> None:
    one = book(tmp_path, record("1"))
    one.waiting = {("ps1", "1"): "1/ps1.ipynb", ("ps1", "2"): "2/ps1.ipynb"}
    one.put(record("1"))
    one.write_tables()
    rows = {row["student"]: row for row in table(tmp_path / "grades.csv")}
    assert rows["2"]["notes"] == "handed in, not graded yet" and rows["2"]["file"] == "2/ps1.ipynb"
    assert "not graded" not in rows["1"]["notes"] and len(rows) == 2
    one.put(record("2"))
    assert [row.record.notes for row in one.rows()] == [[], []]


def test_marks_given_by_hand_are_kept_and_count(tmp_path: Path) -> None:
    one = book(tmp_path, record("1"))
    one.write_tables()
    marks = (tmp_path / "marks.csv").read_text(encoding="utf-8")
    assert marks.count("ps1,1,written") == 3
    marked = (
        marks.replace("written6,,5,", "written6,3.5,5,well said")
        .replace("written7,,5,", 'written7,"4,5",5,')
        .replace("written8,,6,", "written8,6,6,")
    )
    (tmp_path / "marks.csv").write_text(marked + "ps1,1,part1,0,3,copied,\r\n", encoding="utf-8")
    (row,) = [row for row in book(tmp_path, record("1")).write_tables() if row.parts]
    assert (row.parts["written6"], row.parts["written7"], row.parts["part1"]) == (3.5, 4.5, 0)
    assert row.comments["written6"] == "well said" and row.to_mark == 0
    assert (tmp_path / "marks.csv").read_text(encoding="utf-8").startswith(marked)
    for name, column in (("canvas.csv", "ps1"), ("moodle-ps1.csv", "Grade")):
        assert f"{row.points:g}" in {line[column] for line in table(tmp_path / name)}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_marks_may_come_back_from_any_spreadsheet(tmp_path: Path, encoding: str) -> None:
    """With semicolons, another encoding, a comment of two lines, and no line end at the end."""
    book(tmp_path, record("1")).write_tables()
    path = tmp_path / "marks.csv"
    text = path.read_text(encoding="utf-8").replace(",", ";").strip()
    text = text.replace("written6;;5;", 'written6;3,5;5;"für\ndich; ja"')
    path.write_bytes(text.encode(encoding))
    rows = {row.record.student: row for row in book(tmp_path, record("zoë")).write_tables()}
    assert rows["1"].parts["written6"] == 3.5 and rows["1"].to_mark == 2
    assert rows["1"].comments["written6"] == "für\ndich; ja"
    again = path.read_bytes()
    assert book(tmp_path).write_tables()[1].to_mark == 3 and path.read_bytes() == again


@pytest.mark.parametrize("mark", ["six", "-1", "5.5"])
def test_a_mark_that_cannot_be_is_named_and_does_not_count(tmp_path: Path, mark: str) -> None:
    book(tmp_path, record("1")).write_tables()
    path = tmp_path / "marks.csv"
    path.write_text(path.read_text().replace("written6,,", f"written6,{mark},"))
    again = book(tmp_path)
    row = again.write_tables()[0]
    assert row.parts["written6"] is None and mark in again.problems[0]


def test_an_answer_that_changed_after_it_was_marked_is_named(tmp_path: Path) -> None:
    book(tmp_path, record("1")).write_tables()
    path = tmp_path / "marks.csv"
    path.write_text(path.read_text().replace("written6,,", "written6,5,"))
    changed = record("1")
    changed.answers["written6"]["text"] = "another"
    again = book(tmp_path, changed)
    again.write_tables()
    assert "changed after it was marked" in again.problems[0]


def test_a_set_with_answers_to_mark_has_no_grade_in_the_exports(tmp_path: Path) -> None:
    book(tmp_path, record("1")).write_tables()
    canvas = {row["SIS Login ID"]: row for row in table(tmp_path / "canvas.csv")}
    assert canvas["1"] | {"ps1": ""} == canvas["1"] and canvas["1"]["ID"] == "91"
    (moodle,) = table(tmp_path / "moodle-ps1.csv")
    assert moodle["Identifier"] == "Participant 91" and moodle["Grade"] == ""
    assert "3 answers are still to be marked" in moodle["Feedback comments"]


def test_exports_have_the_platforms_own_numbers(tmp_path: Path) -> None:
    """Canvas' from the roster or the file's name; Moodle's, which change, from the file's name."""
    moodle = "B/Student 1_77_assignsubmission_file/ps1.ipynb"
    book(
        tmp_path, record("1", file=moodle), record("x", file="x_LATE_88_5_ps1.ipynb")
    ).write_tables()
    numbers = {row["Identifier"] for row in table(tmp_path / "moodle-ps1.csv")}
    assert numbers == {"Participant 77", "Participant 88"}
    canvas = {row["SIS Login ID"]: row["ID"] for row in table(tmp_path / "canvas.csv")}
    assert (canvas["1"], canvas["2"], canvas["x"]) == ("91", "92", "88")


def test_no_text_of_a_student_is_markup_or_a_formula(tmp_path: Path) -> None:
    odd = record(f"{EVIL}=1+1", notes=["=HYPERLINK()", EVIL])
    odd.reasons = {"part1": EVIL}
    (row, *_) = book(tmp_path, odd).write_tables()
    for page in (student_page(row, FRAMES["ps1"]), marking_page([row], FRAMES["ps1"], EVIL)):
        assert "<script" not in page and 'onerror="' not in page and "&lt;script&gt;" in page
    assert all(line["notes"][:1] != "=" for line in table(tmp_path / "grades.csv"))


def test_every_student_has_a_file_name_of_their_own() -> None:
    names = ["ada", "Ada", "a b", "a_b", "a/b", "..", ".", "zoë", "zoe", "x" * 300, "\ud800x"[1:]]
    slugs = {slug(name).lower() for name in names}
    assert len(slugs) == len(names)
    assert not any("/" in one or one.startswith(".") or len(one) > 80 for one in slugs)


CODE = """def gaps(logits, correct, wrong):
    out = []
    for row in range(len(logits)):
        last = logits[row, -1]
        if correct[row] == wrong[row]:
            raise ValueError("the same")
        out.append(last[correct[row]] - last[wrong[row]])
    if not out:
        raise ValueError("there are no prompts")
    return torch.stack(out) if len(out) > 1 else out[0].reshape(1)
"""


def test_renaming_everything_does_not_hide_a_copy() -> None:
    renamed = CODE.replace("row", "k").replace("last", "z").replace("def gaps", "def mine")
    renamed = renamed.replace("    out = []", '    """My own."""\n    out = []')
    assert fingerprint(CODE) == fingerprint(renamed) and len(fingerprint(CODE)) >= 3
    other = "def gaps(z, a, b):\n    return z[:, -1].gather(1, a) - z[:, -1].gather(1, b)"
    records = [record(student) for student in ("ada", "bob", "eve")]
    for each, source in zip(records, (CODE, renamed, other)):
        each.answers["part1"] = {"text": source}
    assert [pair[:2] for pair in similar(records, FRAMES["ps1"])] == [("ada", "bob")]


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.modules.pop('checks')",
        "import gc",
        "from ctypes import CDLL",
        "get_ipython().ask_exit()",
        "torch.as_tensor = print",
        "import json\njson.dumps = print",
        "f.__code__ = g.__code__",
        "eval('1')",
        "import os\nos.fork()",
        "class A(torch.Tensor): pass",
    ],
)
def test_suspicious_source_is_named(source: str) -> None:
    assert suspicious(source)


def test_the_reference_answers_are_not_suspicious() -> None:
    for frame in FRAMES.values():
        for cell in frame.cells:
            if cell.cell_type == "code":
                assert not suspicious(cell.source), cell.source
