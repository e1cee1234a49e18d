"""``python -m assignments.tools.grade FOLDER``: grade every submission in a folder; write grades and feedback.

The results are nbgrader course folders, one a set, in which the written answers can be marked (``nbgrader formgrader``).
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat

from assignments.tools.course import make_course, released
from assignments.tools.execute import GradedExecute, Run
from assignments.tools.mend import mend
from assignments.tools.sources import ROOT, SOURCE, limits, read_set, set_names
from assignments.tools.submissions import Submission, find
from assignments.tools.vault import Vault


@dataclass
class Grade:
    """What one submission got.

    Attributes:
        parts: points by part; None where a written answer waits to be marked.
        points, automatic: the sum so far, and the most that the checks can give.
        total: the most that the set can give.
        notes: what happened, in words.
    """

    set: str
    student: str
    points: float = 0.0
    automatic: float = 0.0
    total: float = 0.0
    to_mark: int = 0
    seconds: float = 0.0
    parts: dict[str, float | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Grader:
    """Grades submissions of one set, one after the other."""

    def __init__(self, name: str, out: Path, run: Run, source: Path = SOURCE) -> None:
        self.name, self.course, self.run = name, out / name, run
        self.api = make_course(self.course, name, source)
        self.frame = nbformat.read(released(self.course, name), as_version=4)
        self.vault = Vault()
        self.run.before = lambda: self.vault.keep(self.course)
        self.run.after = self._restore

    def _restore(self) -> None:
        if put_back := self.vault.restore():
            self.run.events.append(
                f"{len(put_back)} files of the grader were changed or deleted while this ran, and were put back"
            )

    def grade(self, submission: Submission) -> Grade:
        """Grade one submission; whatever happens, there is a result that says what."""
        start, grade = time.monotonic(), Grade(self.name, submission.student)
        notebook, grade.notes = mend(submission.text, self.frame)
        place = self.course / "submitted" / submission.student / self.name / f"{self.name}.ipynb"
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, place)
        self.run.events, GradedExecute.run = [], self.run
        with self.api.gradebook as gradebook:
            gradebook.update_or_create_student(submission.student)
        for step in (self.api.autograde, self.api.generate_feedback):
            result = step(self.name, submission.student, force=True)
            if not result["success"]:
                grade.notes.append(f"nbgrader stopped: {result['error'].strip().splitlines()[-1]}")
                (self.course / f"{submission.student}.log").write_text(
                    f"{result.get('log', '')}\n{result['error']}", encoding="utf-8"
                )
                break
        grade.notes += self.run.events
        self._read(grade)
        grade.seconds = round(time.monotonic() - start, 1)
        self.vault.keep(self.course)
        return grade

    def _read(self, grade: Grade) -> None:
        """Points from the gradebook."""
        with self.api.gradebook as gradebook:
            for cell in gradebook.find_submission(self.name, grade.student).notebooks[0].grades:
                waits = bool(cell.needs_manual_grade) and cell.manual_score is None
                grade.parts[cell.name] = None if waits else cell.score
                grade.total += cell.max_score
                grade.automatic += cell.max_score if cell.cell_type == "code" else 0.0
                grade.points += 0.0 if waits else cell.score
                grade.to_mark += waits


def write_csv(grades: list[Grade], path: Path) -> None:
    """All grades in one table, one row a submission."""
    parts = sorted({part for grade in grades for part in grade.parts})
    columns = [
        "set",
        "student",
        "points",
        "automatic",
        "total",
        "to_mark",
        *parts,
        "seconds",
        "notes",
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        for grade in grades:
            row = asdict(grade)
            table.writerow(
                {key: row[key] for key in columns if key in row}
                | row["parts"]
                | {"notes": "; ".join(grade.notes)}
            )


def grade_all(
    folder: Path, out: Path, run: Run, *, factor: float = 1.0, source: Path = SOURCE, only: str = ""
) -> list[Grade]:
    """Grade every submission under a folder, and write ``grades.csv`` after each of them."""
    submissions, notes = find(folder, [only] if only else set_names(source))
    for note in notes:
        print(f"note: {note}")
    out.mkdir(parents=True, exist_ok=True)
    # Not a folder that holds what every kernel needs.
    needed = (Path(sys.prefix), ROOT / "helpers")
    secret = (source, ROOT / "assignments", ROOT / "tests" / "assignments", folder, out)
    run.hidden += [
        str(path) for path in secret if not any(place.is_relative_to(path) for place in needed)
    ]
    grades, graders = [], {}
    for number, submission in enumerate(submissions, 1):
        if submission.set not in graders:
            run.limits = limits(read_set(submission.set, source)).times(factor)
            graders = {submission.set: Grader(submission.set, out, run, source)}
        grade = graders[submission.set].grade(submission)
        grades.append(grade)
        write_csv(grades, out / "grades.csv")
        marked = f", {grade.to_mark} written answers to mark" if grade.to_mark else ""
        print(
            f"{number}/{len(submissions)} {grade.set} {grade.student}: {grade.points:g} of {grade.automatic:g} automatic points{marked}, {grade.seconds:.0f} s",
            flush=True,
        )
        for note in grade.notes:
            print(f"    {note}", flush=True)
    return grades


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m assignments.tools.grade", description=__doc__)
    parser.add_argument("folder", type=Path, help="with the submissions, for example ada/ps1.ipynb")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "_build" / "grades",
        help="where grades.csv and the feedback go",
    )
    parser.add_argument("--set", default="", choices=["", *set_names()], help="grade this set only")
    parser.add_argument("--memory-gb", type=float, default=6.0, help="that a submission may use")
    parser.add_argument(
        "--time-factor",
        type=float,
        default=1.0,
        help="multiplies the sets' time limits, for a slow machine",
    )
    parser.add_argument(
        "--kernel-user", default="", help="as root: run the students' code as this user"
    )
    parser.add_argument("--allow-root", action="store_true", help="run the students' code as root")
    given = parser.parse_args()
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root and not (given.allow_root or given.kernel_user):
        sys.exit(
            "Student code is not trusted, and this is root. Grade as another user, name one with --kernel-user, or say --allow-root in a container."
        )
    if given.kernel_user and not root:
        sys.exit("--kernel-user needs root: only root can start a process as another user.")
    if not given.folder.is_dir():
        sys.exit(f"there is no folder {given.folder}")
    if given.out.resolve().is_relative_to(given.folder.resolve()):
        sys.exit(
            f"{given.out} lies in the folder of the submissions: choose another place with --out"
        )
    run = Run(limits=None, memory_bytes=int(given.memory_gb * 2**30), user=given.kernel_user)
    grades = grade_all(
        given.folder.resolve(), given.out.resolve(), run, factor=given.time_factor, only=given.set
    )
    print(
        f"{len(grades)} submissions graded: {given.out / 'grades.csv'}; feedback in {given.out}/*/feedback"
    )


if __name__ == "__main__":
    main()
