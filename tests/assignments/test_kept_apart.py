"""The sources: what they state, and that solutions and hidden tests stay in them."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from traitlets.config import Config

from assignments.tools.publish import publish
from assignments.tools.release import release, student_version
from assignments.tools.solutions import write_solutions
from assignments.tools.sources import (
    CHECKS,
    ROOT,
    SOURCE,
    hand_out_checks,
    marks,
    read_set,
    regions,
    secret_lines,
    set_names,
    shown,
)
from helpers.settings import SETTINGS

pytestmark = pytest.mark.unit


def test_no_page_and_no_helper_holds_a_secret_line() -> None:
    secrets = set()
    for name in set_names():
        # Shorter lines are everybody's Python.
        secrets |= {line for line in secret_lines(read_set(name)) if len(line) > 40}
    assert len(secrets) > 100
    for folder in ("book", "helpers"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".md", ".ipynb", ".yml", ".bib"}:
                text = path.read_text(encoding="utf-8").replace('\\"', '"')
                assert not [line for line in secrets if line in text], path


def test_the_student_versions_hold_no_line_of_a_solution_or_hidden_test(tmp_path: Path) -> None:
    for path in release(tmp_path):
        lines, secret = set(), secret_lines(read_set(path.stem))
        for cell in nbformat.read(path, as_version=4).cells:
            lines.update(line.strip() for line in cell.source.splitlines())
        assert len(secret) > 40 and not secret & lines
        assert not any("HIDDEN TESTS" in line or "END SOLUTION" in line for line in lines)
        assert sorted(file.name for file in path.parent.iterdir()) == ["checks", path.name]


@pytest.mark.slow
def test_nbgrader_makes_the_same_student_version(tmp_path: Path, monkeypatch) -> None:
    api = pytest.importorskip("nbgrader.apps").NbGraderAPI
    # nbgrader runs the program alembic by name.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    shutil.copytree(SOURCE / "ps5", tmp_path / "source" / "ps5")
    settings = Config()
    settings.CourseDirectory.root = str(tmp_path)
    settings.CourseDirectory.db_url = f"sqlite:///{tmp_path / 'gradebook.db'}"
    assert api(config=settings).generate_assignment("ps5")["success"]
    theirs = nbformat.read(tmp_path / "release" / "ps5" / "ps5.ipynb", as_version=4)
    for one, other in zip(theirs.cells, student_version("ps5").cells, strict=True):
        assert one.source.strip() == other.source.strip()
        for key in ("editable", "deletable"):
            assert one.metadata.get(key) == other.metadata.get(key)


def test_solutions_have_the_reference_answers_and_no_hidden_test(tmp_path: Path) -> None:
    for path in write_solutions(tmp_path / "out"):
        name = path.stem.removesuffix("-solutions")
        text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        for cell in read_set(name).cells:
            for line, kind in regions(cell.source):
                assert (line in text) or kind == "HIDDEN TESTS"
        assert "Common mistakes" in text and "### BEGIN" not in text
        hidden = secret_lines(read_set(name)) - set(map(str.strip, text.splitlines()))
        assert len(hidden) > 10


def test_publishing_zips_the_releases_and_links_them(tmp_path: Path) -> None:
    site, releases = tmp_path / "html", tmp_path / "releases"
    site.mkdir()
    (releases / "ps1").mkdir(parents=True)
    assert publish(releases, site) is None, "no page, no releases: nothing to do"
    notebook = read_set("ps1")
    for cell in notebook.cells:
        cell.source = shown(cell.source)
    nbformat.write(notebook, releases / "ps1" / "ps1.ipynb")
    hand_out_checks(releases / "ps1")
    before = '<p>a</p><div id="assignment-releases"><p>none</p></div><p>b</p>'
    (site / "assignments.html").write_text(before, encoding="utf-8")
    for _ in range(2):  # again, with the same result
        page = publish(releases, site).read_text(encoding="utf-8")
        assert page.count('href="assignments/ps1.zip"') == 1
        assert "<p>none</p>" not in page and "<p>b</p>" in page
    archive = zipfile.ZipFile(site / "assignments" / "ps1.zip")
    files = [f"ps1/checks/{path.name}" for path in sorted(CHECKS.glob("*.py"))]
    assert sorted(archive.namelist()) == [*files, "ps1/ps1.ipynb"]


def test_the_container_file_names_what_is_there_and_none_of_the_sources() -> None:
    text = (ROOT / "assignments" / "Containerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    copied = set()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        copied.update(one for one in line.split()[:-1] if not one.startswith("--"))
    # What pip builds from, and the folder of `make assignments`; of `assignments` itself nothing.
    needed = {"pyproject.toml", "constraints.txt", "helpers", project["readme"]}
    assert copied == {*needed, *project["license-files"], "_build/assignments"}
    assert all((ROOT / one).exists() for one in copied - {"_build/assignments"})
    assert all(find_spec(name) for name in re.findall(r"python -m ([\w.]+)", text))
    used = [*re.findall(r"BOOK_(\w+)", text)]
    assert used and all(hasattr(SETTINGS, name.lower()) for name in used)
    installed = {re.match(r"[\w-]+", one)[0] for one in project["dependencies"]}
    (command,) = re.findall(r'^CMD \["jupyter", "(\w+)"', text, re.MULTILINE)
    assert f"jupyter{command}" in installed
    python = re.search(r"FROM python:3\.(\d+)", text)[1]
    assert int(python) >= int(project["requires-python"].rpartition(".")[2])


def test_the_container_file_uses_nothing_before_it_is_there() -> None:
    """As far as can be seen without building it: instructions, programs, and their order."""
    text = (ROOT / "assignments" / "Containerfile").read_text(encoding="utf-8")
    lines = re.findall(r"^([A-Z]+) (.+)$", text, re.MULTILINE)
    known = "FROM RUN WORKDIR ARG COPY ENV USER EXPOSE CMD".split()
    assert lines[0][0] == "FROM" and {one for one, _ in lines} == set(known)
    commands = [one.strip() for kind, given in lines if kind == "RUN" for one in given.split("&&")]
    assert [one.split()[0] for one in commands] == ["useradd", "pip", "python", "chmod"]
    order = ["ARG PIP_", "COPY pyproject.toml constraints.txt", "COPY helpers", "RUN pip install"]
    order += ["ENV BOOK_CACHE", "RUN python -m helpers", "USER student", "COPY --chown=student"]
    places = [text.index(one) for one in order]
    assert places == sorted(places), "each step needs those before it"
    folder = re.search(r"BOOK_CACHE=(\S+)", text)[1]
    assert f"chmod -R a+rX {folder}" in text, "students read the model that root fetched"
    assert lines[-1][0] == "CMD" and text.count("\nUSER ") == 1, "the server does not run as root"


@pytest.mark.parametrize("name", set_names())
def test_a_set_states_its_points_minutes_and_limits_and_has_no_widget(name: str) -> None:
    notebook = read_set(name)
    points = [marks(cell).points for cell in notebook.cells if marks(cell).get("grade")]
    assert sum(points) == 40
    rows = re.findall(
        r"^\| [\d, ]+ \|.*\| (\d+) \| (\d+) \| ★+ \|$", notebook.cells[0].source, re.M
    )
    assert sum(int(minutes) for minutes, _ in rows) == 150
    assert sum(int(points) for _, points in rows) == 40
    assert not any("widget" in cell.source or "interact" in cell.source for cell in notebook.cells)
    limits = notebook.metadata["grading"]
    assert 10 <= limits["cell_seconds"] < limits["total_seconds"]


@pytest.mark.parametrize("name", set_names())
def test_cells_that_students_leave_alone_are_locked_and_ids_are_unique(name: str) -> None:
    cells = [cell for cell in read_set(name).cells if cell.cell_type == "code"]
    ids = [marks(cell).grade_id for cell in cells]
    assert len(set(ids)) == len(ids)
    assert all(marks(cell).locked != marks(cell).solution for cell in cells)
