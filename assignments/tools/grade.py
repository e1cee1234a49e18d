"""``python -m assignments.tools.grade FOLDER``: grade what was handed in.

This process finds the files and keeps the gradebook. Workers read the files and judge them; each
has its own nursery of sandboxes in which student code runs. See the book's page for teachers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from assignments.inside import walls
from assignments.tools import feedback, integrity
from assignments.tools.fair import with_older, wrong_case
from assignments.tools.frame import Frame, read_frame
from assignments.tools.gradebook import Gradebook
from assignments.tools.matching import match
from assignments.tools.reading import Unreadable, read_cells
from assignments.tools.records import Record, SandboxError
from assignments.tools.roster import Roster
from assignments.tools.sources import ROOT, SOURCE, set_names
from assignments.tools.submissions import Handed, find

RUBRICS = ROOT / "assignments" / "rubrics"
BESIDE = "the notebook needs a module handed in beside it"
NO_MODULE = "ModuleNotFoundError: No module named '(?!helpers)"
MISSING = "the answer needs a module that is not installed here"


@dataclass(frozen=True)
class Run:
    """How submissions are graded: limits of the sandbox, factor of the time limits, sources."""

    memory_gb: float = 4.0
    isolation: str = "best"
    factor: float = 1.0
    source: Path = SOURCE


def grade_one(one: Handed, run: Run) -> Record:
    """Grade one submission, in a worker. Whatever is in the file, the record says what came of it.

    Raises:
        SandboxError: student code cannot be run at all.
    """
    from assignments.tools.worker import court

    start, judge = time.monotonic(), court(one.set, run)
    record = Record(one.set, one.student, one.place, notes=list(one.notes))
    record.sandbox = judge.nursery.held
    for part in judge.frame.parts:
        record.passed[part] = None
    try:
        cells, notes = read_cells(one.data)
    except Unreadable as error:
        record.notes.append(f"{error}: a person has to look at it")
        return record
    plan, more = with_older(match(cells, judge.frame), one, judge.frame)
    # Code by its checks; written answers wait for a person.
    results = judge.grade(plan, one.student)
    record.notes += [*notes, *more, *plan.notes, *judge.notes]
    # What fails for want of a module that the student has, and this environment has not.
    said = " ".join(judge.notes)
    beside = "No module named" in said and ".py" in " ".join(one.notes)
    for result in results:
        text = f"{said} {result.part}: {result.reason}"
        own = re.search(rf"{result.part}: {NO_MODULE}", text)
        if result.passed is False and (beside or own):
            result.passed = None
            result.reason += f"; {BESIDE if beside else MISSING}: a person runs it"
        record.passed[result.part] = result.passed
        record.reasons[result.part] = result.reason
        record.references |= {result.part: result.reference} if result.reference else {}
    for part, answer in plan.answers.items():
        record.answers[part] = {"text": answer.text, "images": answer.images}
        if judge.frame.parts[part].written:
            record.reasons[part] = answer.by_hand
            if not answer:
                record.passed[part], record.reasons[part] = False, "no answer was found"
    record.notes += wrong_case(plan.answers, one.student)
    source = [cell.source for cell in cells if cell.kind == "code"]
    for text in source:
        record.suspicious += integrity.suspicious(text)
    record.suspicious = list(dict.fromkeys(record.suspicious))
    record.seconds = round(time.monotonic() - start, 1)
    return record


def _careful(one: Handed, run: Run) -> Record:
    """``grade_one``, with any error of the grader's own as a note."""
    try:
        return grade_one(one, run)
    except SandboxError:
        raise
    except Exception as error:
        return _ungraded(one, f"{type(error).__name__}: {error}")


def _ungraded(one: Handed, why: str) -> Record:
    note = f"the grader stopped ({why[:200]}): a person has to look at it"
    return Record(one.set, one.student, one.place, notes=[*one.notes, note])


def fingerprint_of(one: Handed, run: Run, code: str) -> str:
    """A digest of a submission and of everything that its grade depends on."""
    digest = hashlib.sha256("\n".join([code, one.set, str(run.factor), *one.notes]).encode())
    for each in (one, *one.older):
        digest.update(each.data or b"")
    return digest.hexdigest()


def code_digest(source: Path) -> str:
    """A digest of the sets, the grader and the package."""
    digest = hashlib.sha256()
    for folder in (source, ROOT / "assignments", ROOT / "helpers"):
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".ipynb"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def grade_all(
    folder: Path, out: Path, run: Run, roster: Roster | None = None, jobs: int = 1
) -> Gradebook:
    """Grade what is new or changed in a folder, and write the gradebook.

    Raises:
        SandboxError: student code cannot be run here.
    """
    roster = roster or Roster()
    frames = {name: read_frame(name, run.source) for name in set_names(run.source)}
    out.mkdir(parents=True, exist_ok=True)
    out.chmod(0o700)
    book, code, waiting = Gradebook(out, frames, roster), code_digest(run.source), []
    digests = {}
    # What is unchanged since the last time keeps its row.
    for one in find(folder, frames, roster):
        key = one.set, one.student
        digests[key] = fingerprint_of(one, run, code)
        if one.data is None:
            book.put(Record(one.set or "?", one.student, one.place, notes=one.notes))
        elif getattr(book.records.get(key), "digest", "") != digests[key]:
            waiting.append(one)
    book.waiting = {(one.set, one.student): one.place for one in waiting}
    print(f"{len(digests)} submissions, {len(waiting)} of them new or changed", flush=True)

    for number, record in enumerate(graded(waiting, run, jobs), 1):
        if number == 1:
            print(
                f"student code is held by: {record.sandbox or 'nothing, none has run'}", flush=True
            )
        record.digest = digests[record.set, record.student]
        book.put(record)
        rows = book.write_tables()
        _say(f"{number}/{len(waiting)}", record, frames[record.set])

    rows = book.write_tables()
    feedback.write_pages(rows, frames, out, RUBRICS)
    integrity.write_similar(list(book.records.values()), frames, out / "similar.csv")
    for problem in book.problems:
        print(f"note: {problem}")
    return book


def _say(place: str, record: Record, frame: Frame) -> None:
    code = [part for part in frame.parts.values() if not part.written]
    points = sum(part.points for part in code if record.passed.get(part.id))
    waits = sum(passed is None for passed in record.passed.values())
    print(
        f"{place} {record.set} {record.student}: {points:g} of {sum(p.points for p in code):g} "
        f"automatic points, {waits} answers to mark, {record.seconds:.0f} s",
        flush=True,
    )
    for note in record.notes:
        print(f"    {note}", flush=True)


def _ends_with_the_run() -> None:
    """In a worker: end when the process that started it does, however that ended."""
    walls.prctl(walls.PR_SET_PDEATHSIG, signal.SIGKILL)


def graded(waiting: list[Handed], run: Run, jobs: int, work: Callable = _careful) -> Iterator:
    """Records in the order in which they are done. A worker that dies costs nobody else."""
    if jobs == 0:  # in this process
        yield from (work(one, run) for one in waiting)
        return
    left = list(waiting)
    while left:
        jobs = min(jobs, len(left))
        context = get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=_ends_with_the_run) as pool:
            futures = {pool.submit(work, one, run): one for one in left}
            try:
                for future in as_completed(futures):
                    try:
                        record = future.result()
                    except BrokenExecutor:
                        continue
                    left.remove(futures[future])
                    yield record
            except BaseException:  # no sandbox, or the teacher interrupts: nothing more starts
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if left and jobs == 1:
            # One at a time the first that is left is the one that ended the worker.
            yield _ungraded(left.pop(0), "its worker ended")
        jobs = 1


def main() -> None:
    """Read the command line, refuse what cannot work, then grade."""
    parser = argparse.ArgumentParser(prog="python -m assignments.tools.grade", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="with the submissions, for example ada/ps1.ipynb")
    add("--out", type=Path, default=ROOT / "_build" / "grades", help="where the gradebook is")
    add("--roster", type=Path, help="students.csv: id, name, section, lms_id")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="graded at a time")
    add("--memory-gb", type=float, default=4.0, help="memory limit of a submission")
    add("--time-factor", type=float, default=1.0, help="multiplies the sets' time limits")
    add("--allow-weak-sandbox", action="store_true", help="grade where there are no namespaces")
    given = parser.parse_args()
    import helpers.settings  # noqa: F401  refuses wrong variables of the environment at once

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # terminals that cannot print a name
    folder, out = given.folder.resolve(), given.out.resolve()
    if not folder.is_dir():
        sys.exit(f"There is no folder {given.folder}: name the one with the submissions.")
    if out.is_relative_to(folder):
        sys.exit(f"{given.out} is inside the folder of submissions: choose another --out.")
    isolation = "weak" if given.allow_weak_sandbox else "best"
    run = Run(given.memory_gb, isolation, given.time_factor)
    try:
        roster = Roster.read(given.roster) if given.roster else Roster()
        book = grade_all(folder, out, run, roster, given.jobs)
    except (SandboxError, ValueError, OSError) as error:
        sys.exit(f"Nothing was graded, or no more: {error}")
    print(f"{len(book.records)} submissions in {given.out / 'grades.csv'}; feedback beside it")


if __name__ == "__main__":
    main()
