"""Grading a class: tricks earn nothing, forms lose nothing, and nobody stops the others.

One class hands in a toy set (``class_of_toys``); it is graded once, in real sandboxes.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import toy
from class_of_toys import (
    BAD,
    FORMS,
    REACH,
    TRICKS,
    UNREADABLE,
    WRITTEN_FORMS,
    ends_its_worker,
    write,
    write_class,
)

pytest.importorskip("psutil", reason="grading needs the extra: pip install -e '.[grading]'")

from assignments.inside import walls
from assignments.tools import worker
from assignments.tools.frame import read_frame
from assignments.tools.grade import Run, grade_all
from assignments.tools.grade import graded as records_of
from assignments.tools.records import Row, SandboxError, slug
from assignments.tools.sources import ROOT, set_names
from assignments.tools.submissions import Handed
from assignments.tools.worker import reference

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("grading")]


FILES = "bom utf16 latin crlf txt upper zipped zipped-too no-set heavy version3".split()


class Graded:
    """The graded class: rows by student, and the folder of results."""

    def __init__(self, folder: Path) -> None:
        self.source = toy.write_source(folder / "source")
        self.version = toy.student_version(self.source)
        self.handed_in, self.out = folder / "in", folder / "out"
        places = {"SOURCE": self.source / "toy" / "toy.ipynb", "OUT": self.out}
        write_class(self.handed_in, self.version, places)
        self.run = Run(memory_gb=2.5, source=self.source)
        self.grade()

    def grade(self) -> None:
        self.book = grade_all(self.handed_in, self.out, self.run, jobs=0)
        self.rows: dict[str, Row] = {row.record.student: row for row in self.book.rows()}

    def page(self, student: str) -> str:
        path = self.out / "feedback" / "toy" / f"{slug(student)}.html"
        return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Graded:
    return Graded(tmp_path_factory.mktemp("class"))


def points(row: Row) -> list[float | None]:
    return [row.parts[f"part{n}"] for n in toy.PARTS]


@pytest.mark.parametrize("student", TRICKS)
def test_a_trick_earns_nothing_and_costs_nobody_else(graded: Graded, student: str) -> None:
    row = graded.rows[student]
    assert points(row)[0] == 0, row
    assert row.record.reasons["part1"]


@pytest.mark.parametrize("student", REACH)
def test_the_sandbox_holds_and_an_answer_that_looks_round_is_still_right(graded, student) -> None:
    row = graded.rows[f"reach-{student}"]
    assert points(row) == [2, 2, 2, 2], (row.record.reasons, row.record.notes)


@pytest.mark.parametrize("student", BAD)
def test_bad_code_loses_its_part_and_the_rest_is_graded(graded: Graded, student: str) -> None:
    row, (_, said) = graded.rows[student], BAD[student]
    assert points(row)[1:] == [2, 2, 2], row.record.notes
    assert points(row)[0] == (0 if said else 2), row.record
    assert said in " ".join([*row.record.reasons.values(), *row.record.notes])


@pytest.mark.parametrize("student", [change.__name__ for change in FORMS + WRITTEN_FORMS])
def test_a_right_answer_keeps_its_points_whatever_its_form(graded: Graded, student: str) -> None:
    row = graded.rows[student]
    assert points(row) == [2, 2, 2, 2], (row.record.reasons, row.record.notes)
    assert row.parts["written5"] is None and row.record.answers["written5"]["text"]


@pytest.mark.parametrize("student", FILES)
def test_a_file_is_read_whatever_wrote_it(graded: Graded, student: str) -> None:
    row = graded.rows[student]
    assert points(row) == [2, 2, 2, 2], (row.record.reasons, row.record.notes)


@pytest.mark.parametrize("student", [*UNREADABLE, "link", "only-pdf"])
def test_what_cannot_be_read_has_a_row_and_goes_to_a_person(graded: Graded, student: str) -> None:
    row = graded.rows[student]
    assert "a person has to look" in " ".join(row.record.notes)
    assert not row.record.passed or set(row.record.passed.values()) == {None}


def test_cells_of_one_s_own_have_a_time_account_of_their_own(graded: Graded) -> None:
    said = " ".join(graded.rows["slow_cells"].record.notes)
    assert "not run, your own cells had used up their time" in said or "took more than" in said


def test_a_cell_that_was_interrupted_has_used_its_time_and_runs_no_more(graded: Graded) -> None:
    notes = graded.rows["endless_cells"].record.notes
    assert ["interrupted" in note for note in notes] == [True, False]
    assert "not run, your own cells had used up their time" in notes[1]


def test_an_untouched_set_gets_nothing_and_says_so(graded: Graded) -> None:
    row = graded.rows["stub"]
    assert row.points == 0 and row.to_mark == 0
    assert set(row.record.reasons.values()) == {"no answer was found"}


def test_every_process_of_every_student_has_ended(graded: Graded) -> None:
    left = [
        one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "5817"]
    ]
    assert not left


def test_hidden_inputs_are_told_to_nobody(graded: Graded) -> None:
    shown = [str(toy.HIDDEN), "12345", "other numbers (", f"shape ({12345 % 97 + 3}"]
    for student in graded.rows:
        if student not in ("link", "only-pdf"):
            page = graded.page(student)
            assert not any(one in page for one in shown), student
    assert "ValueError: inputs [2.0, 1.0]" in graded.page("tells-inputs"), "the visible check's are"


def test_a_run_says_what_holds_student_code(graded: Graded, monkeypatch) -> None:
    row = graded.rows["zoë"]
    assert row.record.sandbox.split(", ")[0] == "namespaces"
    assert row.record.sandbox.endswith("limits")

    def refused(*arguments) -> None:
        raise PermissionError("as in a container that allows no filter")

    monkeypatch.setattr(walls, "_call", refused)
    assert walls.narrow() is False


def test_the_table_has_everybody_and_says_what_waits(graded: Graded) -> None:
    with (graded.out / "grades.csv").open(encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(graded.rows) and rows["zoë"]["written5"] == "to mark"
    assert "gc" in rows["finds-hooks"]["suspicious"] and not rows["zoë"]["suspicious"]


def test_unchanged_work_is_not_graded_again_and_one_late_file_keeps_the_rest(
    graded: Graded, capsys: pytest.CaptureFixture
) -> None:
    graded.grade()
    assert ", 0 of them new or changed" in capsys.readouterr().out
    before = dict(graded.rows)
    write(graded.handed_in, "tardy", toy.answered(graded.version, {1: "def times1(x): return 0"}))
    graded.grade()
    assert ", 1 of them new or changed" in capsys.readouterr().out
    assert set(graded.rows) == {*before, "tardy"} and points(graded.rows["tardy"]) == [
        0,
        2,
        2,
        2,
    ]


def test_where_student_code_cannot_run_the_grading_stops_with_a_reason(graded, tmp_path) -> None:
    """A set that is out of order is not a class of zeros."""
    source = tmp_path / "source"
    shutil.copytree(graded.source, source)
    notebook = source / "toy" / "toy.ipynb"
    nothing = "(lambda *a: 0)("
    for changes, reason in [
        ({"return [3 * one": "return [2 * one"}, "the reference answer of toy, part3, fails"),
        (
            {"near(times2(": f"{nothing}(", "near(got, [2 ": f"{nothing}got, [2 "},
            "an empty answer passes toy, part2",
        ),
        ({"helpers.results": "helpers.nothing"}, "cannot be set up: ModuleNotFoundError"),
    ]:
        text = changed = notebook.read_text(encoding="utf-8")
        for old, new in changes.items():
            assert old in changed
            changed = changed.replace(old, new)
        notebook.write_text(changed, encoding="utf-8")
        with pytest.raises(SandboxError, match=reason):
            grade_all(graded.handed_in, tmp_path / reason[:5], Run(2.5, source=source), jobs=0)
        assert not list((tmp_path / reason[:5]).glob("records/toy/z*"))
        notebook.write_text(text, encoding="utf-8")
        worker._courts.clear()


def test_without_namespaces_no_file_outside_can_be_opened(graded, tmp_path: Path) -> None:
    """What ``--allow-weak-sandbox`` leaves; a walk over the disk finds no set and no grades."""
    if walls.libc.syscall(walls.LANDLOCK, None, 0, 1) < 1:
        pytest.skip("this kernel has no Landlock")
    for student in "reach-native reach-disk reach-writes reach-network forks zoë".split():
        shutil.copytree(graded.handed_in / student, tmp_path / "in" / student)
    run = Run(memory_gb=2.5, isolation="limits", source=graded.source)
    for row in grade_all(tmp_path / "in", tmp_path / "out", run, jobs=0).rows():
        assert points(row) == [2, 2, 2, 2], (row.record.student, row.record.reasons)
    test_every_process_of_every_student_has_ended(graded)


def test_a_worker_that_ends_costs_nobody_else() -> None:
    class_ = [Handed(student, "toy", "", b"") for student in ("ada", "bob", "eve", "zoe")]
    done = {one.student: one for one in records_of(class_, Run(), 2, ends_its_worker)}
    assert set(done) == {"ada", "bob", "eve", "zoe"}
    said = {student for student, one in done.items() if "a person has to look" in str(one.notes)}
    assert said == {"bob"}


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    begun = [tmp_path / "ada", tmp_path / "bob"]
    program = (
        "import sys\nfrom class_of_toys import sleeps\n"
        "from assignments.tools.grade import Run, graded\n"
        "from assignments.tools.submissions import Handed\n"
        "if __name__ == '__main__':\n"
        "    class_ = [Handed(one, 'toy', one, b'') for one in sys.argv[1:]]\n"
        "    list(graded(class_, Run(), 2, sleeps))\n"
    )
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    command = [sys.executable, "-c", program, *begun]
    run = psutil.Popen(command, env=os.environ | {"PYTHONPATH": path})
    deadline = time.monotonic() + 120
    while not all(file.exists() for file in begun) and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = [one for one in run.children() if "spawn_main" in " ".join(one.cmdline())]
    run.kill()
    run.wait()
    assert len(workers) == 2 and not psutil.wait_procs(workers, timeout=30)[1]


def test_a_set_is_graded_by_the_command_with_a_roster(tmp_path: Path) -> None:
    """On the embedded model: four right answers and a wrong one."""
    cells = []
    for cell in reference(read_frame("ps3")):
        source = cell.source.replace("attention.W_O[head]", "attention.W_O[0]")
        marks = {"nbgrader": {"grade_id": cell.grade_id}}
        cells.append({"cell_type": cell.kind, "metadata": marks, "source": source})
    write(tmp_path / "in", "Ada Lovelace", {"cells": cells}, "ps3.ipynb")
    roster = tmp_path / "students.csv"
    roster.write_text("id,name\nada,Ada Lovelace\neve,Eve\n", encoding="utf-8")
    command = [sys.executable, "-m", "assignments.tools.grade", tmp_path / "in", "--jobs", "1"]
    command += ["--out", tmp_path / "out", "--roster", roster, "--time-factor", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    points = [rows["ada"][f"part{n}"] for n in range(1, 6)]
    assert points == ["4", "0", "4", "5", "3"] and rows["ada"]["written6"] == "to mark"
    assert rows["eve"]["notes"] == "nothing handed in"


# The command above has opened the court of ps3.
@pytest.mark.parametrize("name", [name for name in set_names() if name != "ps3"])
def test_every_set_can_be_graded_in_a_sandbox(name: str) -> None:
    """Its reference answers pass there, and empty ones fail: else there is no court."""
    assert worker.court(name, Run(memory_gb=2.5)).frame.name == name
