"""Solutions and hidden tests stay where they are: not in the package, the pages or what is published beside them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import nbformat
import pytest

from assignments.tools.publish import publish
from assignments.tools.sources import (
    CHECKS,
    ROOT,
    limits,
    marks,
    read_set,
    secret_lines,
    set_names,
    shown,
)

pytestmark = pytest.mark.unit


def secrets() -> set[str]:
    """The longer secret lines of all sets: short ones are everybody's Python."""
    return {line for name in set_names() for line in secret_lines(read_set(name)) if len(line) > 40}


def test_no_page_and_no_helper_holds_a_secret_line() -> None:
    found, lines = [], secrets()
    assert len(lines) > 100
    for folder in ("book", "helpers"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".md", ".ipynb", ".yml", ".bib"}:
                text = path.read_text(encoding="utf-8").replace('\\"', '"')
                found += [f"{path.name}: {line}" for line in lines if line in text]
    assert not found


def test_publishing_copies_the_releases_and_links_them(tmp_path: Path) -> None:
    site, releases = tmp_path / "html", tmp_path / "releases"
    site.mkdir()
    (releases / "ps1").mkdir(parents=True)
    assert publish(releases, site) is None, "no page, no releases: nothing to do"
    source = read_set("ps1")
    for cell in source.cells:
        cell.source = shown(cell.source)
    nbformat.write(source, releases / "ps1" / "ps1.ipynb")
    shutil.copy(CHECKS, releases / "ps1")
    (site / "assignments.html").write_text(
        '<p>a</p><div id="assignment-releases"><p>none</p></div><p>b</p>', encoding="utf-8"
    )
    for _ in range(2):  # again and again, with the same result
        page = publish(releases, site)
    assert page.read_text(encoding="utf-8").count('href="assignments/ps1.zip"') == 1
    assert "<p>none</p>" not in page.read_text(encoding="utf-8") and "<p>b</p>" in page.read_text(
        encoding="utf-8"
    )
    archive = zipfile.ZipFile(site / "assignments" / "ps1.zip")
    assert sorted(archive.namelist()) == ["ps1/checks.py", "ps1/ps1.ipynb"]


@pytest.mark.parametrize("name", set_names())
def test_a_set_states_its_points_and_minutes_and_has_no_widget(name: str) -> None:
    notebook = read_set(name)
    points = [marks(cell).points for cell in notebook.cells if marks(cell).get("grade")]
    assert sum(points) == 30
    head = notebook.cells[0].source
    rows = [
        line.split("|")
        for line in head.splitlines()
        if line.startswith("| ") and "★" in line and "Difficulty" not in line
    ]
    assert sum(int(row[4]) for row in rows) == 30 and sum(int(row[3]) for row in rows) == 120
    assert not any("widget" in cell.source or "interact" in cell.source for cell in notebook.cells)
    assert 10 <= limits(notebook).cell_seconds < limits(notebook).total_seconds


@pytest.mark.parametrize("name", set_names())
def test_cells_that_students_leave_alone_are_locked_and_ids_are_unique(name: str) -> None:
    cells = [cell for cell in read_set(name).cells if cell.cell_type == "code"]
    ids = [marks(cell).grade_id for cell in cells]
    assert len(set(ids)) == len(ids)
    assert all(marks(cell).locked != marks(cell).solution for cell in cells)
