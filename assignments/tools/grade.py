"""``python -m assignments.tools.grade FOLDER``: grade submissions; write grades and feedback.

The results are nbgrader course folders, one for each set, in which written answers can be marked
(``nbgrader formgrader``).
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
from assignments.tools.sources import ROOT, SOURCE, read_set, set_names
from assignments.tools.submissions import Submission, find


@dataclass
class Grade:
    """Result of one submission.

    Attributes:
        points: sum so far.
        automatic: maximum that the checks can give.
        total: maximum of the set.
        to_mark: written answers that wait to be marked.
        parts: points by part; None where a written answer waits.
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
        run.course = self.course

    def grade(self, submission: Submission) -> Grade:
        """Grade one submission; whatever happens, the result says what."""
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
                log = f"{result.get('log', '')}\n{result['error']}"
                (self.course / f"{submission.student}.log").write_text(log, encoding="utf-8")
                break
        grade.notes += self.run.events
        self._read_points(grade)
        grade.seconds = round(time.monotonic() - start, 1)
        return grade

    def _read_points(self, grade: Grade) -> None:
        """Fill in the points from the gradebook."""
        with self.api.gradebook as gradebook:
            for cell in gradebook.find_submission(self.name, grade.student).notebooks[0].grades:
                waits = bool(cell.needs_manual_grade) and cell.manual_score is None
                grade.parts[cell.name] = None if waits else cell.score
                grade.total += cell.max_score
                grade.automatic += cell.max_score if cell.cell_type == "code" else 0.0
                grade.points += 0.0 if waits else cell.score
                grade.to_mark += waits


def write_csv(grades: list[Grade], path: Path) -> None:
    """Write all grades as one table, a row for each submission and a column for each part."""
    parts = sorted({part for grade in grades for part in grade.parts})
    columns = ["set", "student", "points", "automatic", "total", "to_mark"]
    columns += [*parts, "seconds", "notes"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        for grade in grades:
            table.writerow(asdict(grade) | grade.parts | {"notes": "; ".join(grade.notes)})


def grade_all(
    folder: Path, out: Path, run: Run, *, factor: float = 1.0, source: Path = SOURCE
) -> list[Grade]:
    """Grade every submission in a folder, and write ``grades.csv`` after each of them.

    Args:
        run: how submissions are run; its time limits come from the sets.
        factor: of the time limits.
    """
    submissions, notes = find(folder, set_names(source))
    for note in notes:
        print(f"note: {note}")
    out.mkdir(parents=True, exist_ok=True)

    # Hide sources, other submissions and results, but no folder that holds what kernels need.
    needed = (Path(sys.prefix), ROOT / "helpers")
    for path in (source, ROOT / "assignments", ROOT / "tests" / "assignments", folder, out):
        if not any(place.is_relative_to(path) for place in needed):
            run.hidden.append(str(path))

    grades, grader = [], None
    for number, submission in enumerate(submissions, 1):
        if grader is None or grader.name != submission.set:
            limits = read_set(submission.set, source).metadata["grading"]
            run.cell_seconds = factor * limits["cell_seconds"]
            run.total_seconds = factor * limits["total_seconds"]
            grader = Grader(submission.set, out, run, source)
        grade = grader.grade(submission)
        grades.append(grade)
        write_csv(grades, out / "grades.csv")
        print(
            f"{number}/{len(submissions)} {grade.set} {grade.student}: "
            f"{grade.points:g} of {grade.automatic:g} automatic points, "
            f"{grade.to_mark} written answers to mark, {grade.seconds:.0f} s",
            flush=True,
        )
        for note in grade.notes:
            print(f"    {note}", flush=True)
    return grades


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m assignments.tools.grade", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="with the submissions, for example ada/ps1.ipynb")
    default = ROOT / "_build" / "grades"
    add("--out", type=Path, default=default, help="where grades.csv and the feedback go")
    add("--memory-gb", type=float, default=6.0, help="memory limit of a submission")
    add("--time-factor", type=float, default=1.0, help="multiplies the sets' time limits")
    add("--kernel-user", default="", help="as root: run student code as this user")
    add("--allow-root", action="store_true", help="run student code as root")
    return parser.parse_args()


def main() -> None:
    """Refuse what would be unsafe, then grade."""
    given = arguments()
    folder, out = given.folder.resolve(), given.out.resolve()
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root and not (given.allow_root or given.kernel_user):
        sys.exit(
            "This is root, and student code is not trusted. Grade as another user, name one with "
            "--kernel-user, or use --allow-root in a container."
        )
    if given.kernel_user and not root:
        sys.exit("--kernel-user needs root: only root can start a process as another user.")
    if not folder.is_dir():
        sys.exit(f"There is no folder {given.folder}: name the one with the submissions.")
    if out.is_relative_to(folder):
        sys.exit(f"{given.out} is inside the folder of submissions: choose another --out.")
    run = Run(memory_bytes=int(given.memory_gb * 2**30), user=given.kernel_user)
    grades = grade_all(folder, out, run, factor=given.time_factor)
    feedback = f"feedback in {given.out}/*/feedback"
    print(f"{len(grades)} submissions graded: {given.out / 'grades.csv'}; {feedback}")


if __name__ == "__main__":
    main()
