"""Grading with nbgrader: no submission can stop it, or get points that it should not.

One class hands in a toy set whose part n asks for a function that multiplies by n. A student can
misbehave in each of its six parts, in a different way.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytest.importorskip(
    "nbgrader", reason="grading needs the extra: pip install -c constraints.txt -e '.[grading]'"
)

from assignments.tools.grade import Grade, grade_all
from assignments.tools.kernel import Run
from assignments.tools.release import release
from assignments.tools.sources import ROOT, marks, read_set, secret_lines, set_names

pytestmark = pytest.mark.integration

PARTS = range(1, 7)
RIGHT = {f"part{n}": f"def times{n}(x):\n    return {n} * x" for n in PARTS}
RIGHT["written7"] = "I thought about it."
DEAF = """while True:
        try:
            while True:
                pass
        except BaseException:
            pass"""
# By student and part: what the function does, and what the notes say of it.
BAD = {
    "breaker": {
        1: ("while True:\n        pass", "took more than 4 seconds"),
        2: (DEAF, "did not stop when it was interrupted"),
        3: ("hoard = []\n    while True:\n        hoard.append(bytearray(10**8))", "emory"),
        4: ("import os\n    os._exit(1)", "ended the kernel"),
        5: ("import ctypes\n    return ctypes.string_at(0)", "ended the kernel"),
        6: ("pass\nimport os\nos._exit(3)", "part6: this cell ended the kernel"),
    },
    "mischief": {
        1: ("raise SystemExit", ""),
        2: ("import shutil\n    shutil.rmtree(OUT, ignore_errors=False)", "not allowed"),
        3: ("open(SOURCE).read()\n    return 3 * x", "not allowed"),
        4: ("import subprocess\n    subprocess.run(['true'])\n    return 4 * x", "not allowed"),
        5: ("for i in range(20_000):\n        print('x' * 500)", ""),
        6: ("get_ipython().displayhook(1000)\n    raise ValueError", ""),
    },
    "silent": {
        1: ("return 2", ""),  # typed in: right for the visible check
        2: ("get_ipython().showtraceback = print\n    return 5", ""),
        6: ("globals()['print'] = len\n    return 6 * x", "did not run to its end"),
    },
}


def marked(cell, grade_id: str, **more):
    """A cell with nbgrader's metadata."""
    metadata = {"schema_version": 3, "grade_id": grade_id, "task": False}
    for key in ("grade", "solution", "locked"):
        metadata[key] = False
    cell.metadata["nbgrader"] = metadata | more
    return cell


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy set's source."""
    cells = [new_markdown_cell("# Toy"), marked(new_code_cell("import math"), "setup", locked=True)]
    for n in PARTS:
        answer = (
            f"def times{n}(x):\n    ### BEGIN SOLUTION\n    return {n} * x\n    ### END SOLUTION"
        )
        check = (
            f"assert times{n}(2) == {2 * n}, '{n} times 2'\n### BEGIN HIDDEN TESTS\n"
            f"assert times{n}(-7.5) == {-7.5 * n}, '{n} times another'\n### END HIDDEN TESTS"
        )
        cells.append(marked(new_code_cell(answer), f"part{n}", solution=True))
        options = {"grade": True, "locked": True, "points": 1}
        cells.append(marked(new_code_cell(check), f"part{n}-check", **options))
    written = {"grade": True, "solution": True, "points": 5}
    cells.append(marked(new_markdown_cell("Because."), "written7", **written))
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "grading": {"cell_seconds": 4, "total_seconds": 90},
    }
    path = tmp_path_factory.mktemp("source") / "toy" / "toy.ipynb"
    path.parent.mkdir()
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path.parents[1]


@pytest.fixture(scope="module")
def toy(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student version of the toy set."""
    (path,) = release(tmp_path_factory.mktemp("toy") / "released", source)
    return path


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The student versions of the course's sets, by name."""
    return {path.stem: path for path in release(tmp_path_factory.mktemp("sets") / "released")}


def hand_in(folder: Path, student_version: Path, student: str, answers: dict[str, str], change=len):
    """Write a student's file: the student version with answers and any other change."""
    notebook = nbformat.read(student_version, as_version=4)
    for cell in notebook.cells:
        cell.source = answers.get(marks(cell).get("grade_id"), cell.source)
    change(notebook)
    path = folder / student / student_version.name
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


def meddle(notebook) -> None:
    """Make checks pass and worth more, and hand in an answer twice."""
    for cell in notebook.cells:
        if marks(cell).get("grade") and cell.cell_type == "code":
            cell.source, cell.metadata.nbgrader["points"] = "pass", 100
    answer = notebook.cells[2]
    notebook.cells.append(new_code_cell(answer.source, metadata=answer.metadata))


def untidy(notebook) -> None:
    """Delete a check, and add a cell that an answer needs."""
    notebook.cells.pop(3)
    notebook.cells.insert(2, new_code_cell("def own(x):\n    return x"))


@pytest.fixture(scope="module")
def graded(source: Path, toy: Path, tmp_path_factory) -> tuple[dict[str, Grade], Path]:
    """Grades by student, and the folder of results."""
    folder = tmp_path_factory.mktemp("class")
    here, out = folder / "in", folder / "out"
    places = {"OUT": repr(str(out)), "SOURCE": repr(str(source / "toy" / "toy.ipynb"))}
    for student, bodies in BAD.items():
        answers = dict(RIGHT)
        for n, (body, _) in bodies.items():
            for name, place in places.items():
                body = body.replace(name, place)
            answers[f"part{n}"] = f"def times{n}(x):\n    {body}"
        hand_in(here, toy, student, answers)
    hand_in(here, toy, "meddler", {"part1": "def times1(x):\n    return 0"}, meddle)
    hand_in(here, toy, "untidy", RIGHT | {"part1": "def times1(x):\n    return own(x)"}, untidy)
    hand_in(here, toy, "zoe", RIGHT)  # after all the others
    (here / "broken").mkdir()
    (here / "broken" / "toy.ipynb").write_text("{ this is no notebook", encoding="utf-8")
    grades = grade_all(here, out, Run(memory_bytes=2**30), source=source)
    return {grade.student: grade for grade in grades}, out


@pytest.mark.parametrize("student", BAD)
def test_bad_code_loses_its_part_and_the_rest_is_graded(graded, student: str) -> None:
    grade = graded[0][student]
    expected = {f"part{n}-check": float(n not in BAD[student]) for n in PARTS}
    assert grade.parts == expected | {"written7": None}, grade.notes
    for n, (_, note) in BAD[student].items():
        assert not note or any(f"part{n}" in said and note in said for said in grade.notes)


def test_right_answers_get_all_points_whoever_came_before(graded) -> None:
    for student in ("untidy", "zoe"):
        grade = graded[0][student]
        points = (grade.points, grade.automatic, grade.total, grade.to_mark)
        assert points == (6, 6, 11, 1), grade.notes


def test_a_broken_file_gets_nothing(graded) -> None:
    grade = graded[0]["broken"]
    assert (grade.points, grade.to_mark) == (0, 0) and "cannot be read" in grade.notes[0]


def test_changed_checks_and_points_count_as_they_were(graded) -> None:
    grade, notes = graded[0]["meddler"], " ".join(graded[0]["meddler"].notes)
    assert (grade.points, grade.automatic) == (0, 6)
    assert "part1-check was changed" in notes and "part1 is there twice" in notes


def feedback(graded, student: str) -> str:
    path = graded[1] / "toy" / "feedback" / student / "toy" / "toy.html"
    return path.read_text(encoding="utf-8")


def test_there_is_a_table_and_feedback_for_everybody_without_hidden_tests(graded) -> None:
    with (graded[1] / "grades.csv").open(encoding="utf-8") as file:
        assert {row["student"] for row in csv.DictReader(file)} == set(graded[0])
    for student in graded[0]:
        page = feedback(graded, student)
        assert "3 times 2" in page and "-7.5" not in page and "-22.5" not in page, student
    assert "took more than 4 seconds" in feedback(graded, "breaker")
    assert "not allowed while this notebook is graded" in feedback(graded, "mischief")
    assert "did not run to its end" in feedback(graded, "silent")


def test_feedback_made_by_nbgrader_s_own_command_has_no_hidden_tests_either(graded) -> None:
    course = graded[1] / "toy"
    (course / "feedback" / "zoe" / "toy" / "toy.html").unlink()
    command = "-m nbgrader generate_feedback toy --student zoe --force".split()
    subprocess.run([sys.executable, *command], cwd=course, check=True, capture_output=True)
    page = feedback(graded, "zoe")
    assert "3 times 2" in page and "-7.5" not in page and "-22.5" not in page


def grade_command(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "assignments.tools.grade", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")
def test_grading_refuses_to_run_as_root_unless_allowed(tmp_path: Path) -> None:
    result = grade_command(tmp_path)
    assert result.returncode == 1 and "not trusted" in result.stderr


def test_a_kernel_that_runs_as_another_user_cannot_reach_the_grader_natively(
    source: Path, toy: Path, tmp_path: Path
) -> None:
    """Native code gets around the refusals; the operating system still says no."""
    try:
        subprocess.run([sys.executable, "-c", ""], user="nobody", check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs root, and a Python that the user nobody can run")
    source.chmod(0o700)
    out = tmp_path / "out"
    secret, database = source / "toy" / "toy.ipynb", out / "toy" / "gradebook.db"
    reach = (
        "import ctypes\nlibrary = ctypes.CDLL(None)\n"
        f"print(library.open({os.fsencode(secret)!r}, 0),"
        f" library.unlink({os.fsencode(database)!r}))\n"
    )
    hand_in(tmp_path / "in", toy, "eve", RIGHT | {"part1": reach + RIGHT["part1"]})
    (grade,) = grade_all(
        tmp_path / "in", out, Run(memory_bytes=2**30, user="nobody"), source=source
    )
    notebook = out / "toy" / "autograded" / "eve" / "toy" / "toy.ipynb"
    assert "-1 -1" in notebook.read_text(encoding="utf-8") and grade.points == 6


def test_the_student_versions_hold_no_line_of_a_solution_or_hidden_test(releases) -> None:
    assert sorted(releases) == set_names()
    for name, path in releases.items():
        lines, secret = set(), secret_lines(read_set(name))
        for cell in nbformat.read(path, as_version=4).cells:
            lines.update(line.strip() for line in cell.source.splitlines())
        assert len(secret) > 40 and not secret & lines
        assert not any("HIDDEN TESTS" in line or "END SOLUTION" in line for line in lines)
        assert sorted(file.name for file in path.parent.iterdir()) == ["checks.py", path.name]


def test_a_set_is_graded_end_to_end_and_altered_checks_do_not_count(releases, tmp_path) -> None:
    """By the command line, on the embedded model: four right answers and a wrong one."""
    alter = """import checks
for function in checks.__all__:
    setattr(checks, function, lambda *arguments, **options: None)
near = own_work = shaped = print
open(checks.__file__, "w").write("near = own_work = shaped = print")"""
    solutions = [cell for cell in read_set("ps3").cells if marks(cell).get("solution")]
    answers = {marks(cell).grade_id: cell.source for cell in solutions}
    answers["part3"] = "def feature_vector(model, layer, head, m):\n    return torch.zeros(32)"
    hand_in(
        tmp_path / "in",
        releases["ps3"],
        "ada",
        answers,
        lambda notebook: notebook.cells.insert(2, new_code_cell(alter)),
    )
    options = ("--out", tmp_path / "out", "--allow-root", "--time-factor", 4)
    result = grade_command(tmp_path / "in", *options)
    assert result.returncode == 0, result.stderr
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    points = [float(row[f"part{n}-check"]) for n in range(1, 6)]
    assert points == [4, 4, 0, 5, 3] and row["to_mark"] == "2"
    assert row["notes"].startswith("a cell of the student: PermissionError not allowed")
