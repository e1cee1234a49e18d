"""True grading runs with nbgrader: nothing that a submission does stops the grader, or gets points that it should not."""

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

from assignments.tools.execute import Run
from assignments.tools.grade import Grade, grade_all
from assignments.tools.release import release
from assignments.tools.sources import ROOT, marks, read_set, secret_lines, set_names

pytestmark = pytest.mark.integration

TOY = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
CHECK = "assert double(2) == 4, 'twice 2 is 4'\n### BEGIN HIDDEN TESTS\nassert double(-7.5) == -15.0, 'twice another number'\n### END HIDDEN TESTS"


def marked(cell, grade_id: str, **more):
    cell.metadata["nbgrader"] = {
        "schema_version": 3,
        "grade_id": grade_id,
        "grade": False,
        "solution": False,
        "locked": False,
        "task": False,
    } | more
    return cell


def toy(folder: Path) -> Path:
    """A set of two parts that needs no model."""
    cells = [
        new_markdown_cell("# A toy set"),
        marked(new_code_cell("import math"), "setup", locked=True),
    ]
    for number, name in ((1, "double"), (2, "triple")):
        turn = lambda text: (
            text
            if number == 1
            else text.replace("double", "triple")
            .replace("2 * x", "3 * x")
            .replace("twice 2 is 4", "thrice")
            .replace("== 4", "== 6")
            .replace("-15.0", "-22.5")
        )
        cells.append(marked(new_code_cell(turn(TOY)), f"part{number}", solution=True))
        cells.append(
            marked(
                new_code_cell(turn(CHECK)),
                f"part{number}-check",
                grade=True,
                locked=True,
                points=number,
            )
        )
    cells.append(
        marked(new_markdown_cell("Because."), "written3", grade=True, solution=True, points=5)
    )
    kernel = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "grading": {"cell_seconds": 4, "total_seconds": 90},
    }
    path = folder / "toy" / "toy.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return folder


def hand_in(
    folder: Path, source: Path, student: str, answers: dict[str, str], change=lambda notebook: None
) -> None:
    """A student's file: the student version of the toy set with these answers, and any other change."""
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        cell.source = answers.get(marks(cell).get("grade_id"), cell.source)
    change(notebook)
    path = folder / student / source.name
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


RIGHT = {
    "part1": "def double(x):\n    return x + x",
    "part2": "def triple(x):\n    return x + x + x",
    "written3": "I thought about it.",
}
DOUBLE = "def double(x):\n    "
# What a student does in part 1, and what the notes say of it. Part 2 is right, and is to get its two points.
BAD = {
    "endless": (DOUBLE + "while True:\n        pass", "took more than 4 seconds"),
    "deaf": (
        DOUBLE
        + "while True:\n        try:\n            while True:\n                pass\n        except BaseException:\n            pass",
        "did not stop",
    ),
    "memory": (
        DOUBLE + "hoard = []\n    while True:\n        hoard.append(bytearray(10**8))",
        "emory",
    ),
    "dies": (DOUBLE + "import os\n    os._exit(1)", "ended the kernel"),
    "dies-early": ("import os\nos._exit(3)", "ended the kernel"),
    "segfault": (DOUBLE + "import ctypes\n    return ctypes.string_at(0)", "ended the kernel"),
    "leaves": (DOUBLE + "raise SystemExit", ""),
    "silent": ("get_ipython().showtraceback = lambda *a, **k: None\n" + DOUBLE + "return 4", ""),
    "flood": (DOUBLE + "for i in range(20_000):\n        print('x' * 500)\n    return 5", ""),
    "deletes": (
        DOUBLE + "import shutil\n    shutil.rmtree(OUT, ignore_errors=False)",
        "not allowed",
    ),
    "spies": (DOUBLE + "text = open(SOURCE).read()\n    return 2 * x", "not allowed"),
    "starts": (
        DOUBLE + "import subprocess\n    subprocess.run(['true'])\n    return 2 * x",
        "not allowed",
    ),
    "points": (DOUBLE + "get_ipython().displayhook(1000)\n    raise ValueError", ""),
    "typed-in": (DOUBLE + "return 4", ""),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Grade], Path]:
    """The toy set, handed in by many."""
    folder = tmp_path_factory.mktemp("toy")
    source, out = toy(folder / "source"), folder / "out"
    (student_version,) = release(folder / "released", source)
    here = folder / "in"
    for name, (answer, _) in BAD.items():
        answer = answer.replace("OUT", repr(str(out))).replace(
            "SOURCE", repr(str(source / "toy" / "toy.ipynb"))
        )
        hand_in(here, student_version, name, RIGHT | {"part1": answer})
    hand_in(here, student_version, "empty", {})
    hand_in(here, student_version, "right", RIGHT)
    hand_in(here, student_version, "zoe", RIGHT)  # after all the others

    def meddle(notebook) -> None:
        for cell in notebook.cells:
            if marks(cell).get("grade") and cell.cell_type == "code":
                cell.source, cell.metadata.nbgrader["points"] = "pass", 100
        notebook.cells.append(
            new_code_cell(notebook.cells[2].source, metadata=notebook.cells[2].metadata)
        )

    hand_in(here, student_version, "meddler", {"part1": "def double(x):\n    return 0"}, meddle)
    hand_in(here, student_version, "deleter", RIGHT, lambda notebook: notebook.cells.pop(3))
    hand_in(
        here,
        student_version,
        "helper-cell",
        RIGHT | {"part1": DOUBLE + "return own(x)"},
        lambda notebook: notebook.cells.insert(2, new_code_cell("def own(x):\n    return x * 2")),
    )
    (here / "broken").mkdir()
    (here / "broken" / "toy.ipynb").write_text("{ this is no notebook", encoding="utf-8")
    grades = grade_all(here, out, Run(limits=None, memory_bytes=2**30), source=source)
    return {grade.student: grade for grade in grades}, out


@pytest.mark.parametrize("student", BAD)
def test_bad_code_loses_its_part_and_the_rest_is_graded(graded, student: str) -> None:
    grade = graded[0][student]
    assert (grade.parts["part1-check"], grade.parts["part2-check"]) == (0, 2), grade.notes
    assert BAD[student][1] in "; ".join(grade.notes)


def test_right_answers_get_all_points_whoever_came_before(graded) -> None:
    for student in ("right", "zoe", "helper-cell", "deleter"):
        grade = graded[0][student]
        assert (grade.points, grade.automatic, grade.total, grade.to_mark) == (3, 3, 8, 1), (
            grade.notes
        )


def test_an_empty_or_broken_file_gets_nothing(graded) -> None:
    for student in ("empty", "broken"):
        assert graded[0][student].points == 0 and graded[0][student].to_mark == 0
    assert "cannot be read" in graded[0]["broken"].notes[0]


def test_changed_checks_and_points_count_as_they_were(graded) -> None:
    grade = graded[0]["meddler"]
    assert (grade.points, grade.automatic) == (0, 3)
    assert any("was changed" in note for note in grade.notes) and any(
        "twice" in note for note in grade.notes
    )


def test_there_is_a_table_and_feedback_for_everybody_without_hidden_tests(graded) -> None:
    grades, out = graded
    with (out / "grades.csv").open(encoding="utf-8") as file:
        assert {row["student"] for row in csv.DictReader(file)} == set(grades)
    for student in grades:
        text = (out / "toy" / "feedback" / student / "toy" / "toy.html").read_text(encoding="utf-8")
        assert "twice 2 is 4" in text and "-7.5" not in text and "-22.5" not in text, student


def test_feedback_made_by_nbgrader_s_own_command_has_no_hidden_tests_either(graded) -> None:
    course, student = graded[1] / "toy", "right"
    page = course / "feedback" / student / "toy" / "toy.html"
    page.unlink()
    command = [
        sys.executable,
        "-m",
        "nbgrader",
        "generate_feedback",
        "toy",
        "--student",
        student,
        "--force",
    ]
    subprocess.run(command, cwd=course, check=True, capture_output=True)
    text = page.read_text(encoding="utf-8")
    assert "twice 2 is 4" in text and "-7.5" not in text and "-22.5" not in text


def test_feedback_says_what_happened(graded) -> None:
    feedback = lambda student: (
        graded[1] / "toy" / "feedback" / student / "toy" / "toy.html"
    ).read_text(encoding="utf-8")
    assert "took more than 4 seconds" in feedback("endless")
    assert "not allowed while this notebook is graded" in feedback("starts")
    assert "did not run to its end" in feedback("silent") or "AssertionError" in feedback("silent")


def test_grading_refuses_to_run_as_root_unless_told(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    result = subprocess.run(
        [sys.executable, "-m", "assignments.tools.grade", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and "not trusted" in result.stderr


def test_a_kernel_that_runs_as_another_user_cannot_reach_the_grader_natively(
    tmp_path: Path,
) -> None:
    """Around the refusals, with the C library: the operating system says no."""
    try:
        subprocess.run([sys.executable, "-c", ""], user="nobody", check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs root, and a Python that the user nobody can run")
    source, out = toy(tmp_path / "source"), tmp_path / "out"
    source.chmod(0o700)
    (student_version,) = release(tmp_path / "released", source)
    reach = f"import ctypes\nlibrary = ctypes.CDLL(None)\nprint(library.open({str(source / 'toy' / 'toy.ipynb')!r}.encode(), 0), library.unlink({str(out / 'toy' / 'gradebook.db')!r}.encode()))\n"
    hand_in(tmp_path / "in", student_version, "eve", RIGHT | {"part1": reach + RIGHT["part1"]})
    (grade,) = grade_all(
        tmp_path / "in", out, Run(limits=None, memory_bytes=2**30, user="nobody"), source=source
    )
    text = (out / "toy" / "autograded" / "eve" / "toy" / "toy.ipynb").read_text(encoding="utf-8")
    assert "-1 -1" in text and grade.points == 3


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return release(tmp_path_factory.mktemp("releases") / "assignments")


def test_the_student_versions_hold_no_line_of_a_solution_or_hidden_test(releases) -> None:
    texts = {path.stem: nbformat.read(path, as_version=4) for path in releases}
    assert sorted(texts) == set_names()
    for name, notebook in texts.items():
        lines = {line.strip() for cell in notebook.cells for line in cell.source.splitlines()}
        secret = secret_lines(read_set(name))
        assert len(secret) > 40 and not secret & lines
        assert not any("HIDDEN TESTS" in line or "END SOLUTION" in line for line in lines)


def test_a_set_is_graded_end_to_end_on_the_embedded_model(releases, tmp_path: Path) -> None:
    """The reference and an empty file, by the command line."""
    here, name = tmp_path / "in", "ps3"
    answers = {
        marks(cell).grade_id: cell.source
        for cell in read_set(name).cells
        if marks(cell).get("solution")
    }
    student_version = next(path for path in releases if path.stem == name)
    hand_in(here, student_version, "ada", answers)
    hand_in(here, student_version, "bob", {})
    command = [
        sys.executable,
        "-m",
        "assignments.tools.grade",
        str(here),
        "--out",
        str(tmp_path / "out"),
        "--allow-root",
        "--time-factor",
        "4",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert (float(rows["ada"]["points"]), rows["ada"]["to_mark"], rows["ada"]["notes"]) == (
        20,
        "2",
        "",
    )
    assert (float(rows["bob"]["points"]), rows["bob"]["to_mark"], rows["bob"]["notes"]) == (
        0,
        "0",
        "",
    )
