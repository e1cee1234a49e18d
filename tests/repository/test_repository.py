"""What the repository promises of itself: clean notebooks, pages in reach, nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from sphinx_external_toc.parsing import parse_toc_yaml

from tests.repository.tree import (
    BOOK,
    CHAPTERS,
    HELPERS,
    NOTEBOOKS,
    OURS,
    ROOT,
    SETS,
    THIRD_PARTY,
    TRACKED,
    cells,
    relative,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("path", NOTEBOOKS + SETS, ids=relative)
def test_a_notebook_is_valid_holds_no_outputs_and_names_no_kernel_of_its_own(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4 and notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set(parse_toc_yaml(BOOK / "_toc.yml"))
    texts = [path for path in BOOK.rglob("*.md") if "_assets" not in path.parts]
    pages = [path.relative_to(BOOK).with_suffix("") for path in NOTEBOOKS + texts]
    assert {path.as_posix() for path in pages} == listed


@pytest.mark.parametrize("path", CHAPTERS, ids=relative)
def test_every_exercise_has_a_folded_hint(path: Path) -> None:
    (cell,) = [source for source in cells(path, "markdown") if "## Exercises\n" in source]
    exercises = re.split(r"^\d+\. ", cell.partition("## Exercises\n")[2], flags=re.MULTILINE)[1:]
    assert exercises
    for exercise in exercises:
        assert exercise.count("<details><summary>Hint</summary>") == 1
        assert exercise.count("<details>") == exercise.count("</details>")


@pytest.mark.parametrize("path", CHAPTERS, ids=relative)
def test_figures_and_claims_are_folded_on_the_page(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        closing = re.search(r"\b(claim|closing_table)\(", cell.source)
        if cell.cell_type == "code" and (closing or "figure" in cell.metadata.get("mystnb", {})):
            assert "hide-input" in cell.metadata.get("tags", []), cell.source


def test_every_set_has_a_rubric() -> None:
    rubrics = {path.stem for path in (ROOT / "assignments" / "rubrics").glob("*.md")}
    assert rubrics == {path.stem for path in SETS}


def test_helpers_never_edit_the_import_path() -> None:
    for path in HELPERS:
        assert not re.search(r"sys\.path\s*(\.|\[|\+?=[^=])", path.read_text(encoding="utf-8")), (
            path
        )


def test_no_file_names_the_place_it_was_written_in() -> None:
    """No folder of one person's machine, no note to self; in pieces, so as not to find itself."""
    patterns = [r"/(?:home|root|Users)" + r"/\w", r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b"]
    left_behind = re.compile("|".join(patterns))
    found = []
    for path in OURS:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{relative(path)}: {match[0]}" for match in left_behind.finditer(text)]
    assert not found


def test_files_of_others_come_with_their_licence() -> None:
    listed = (BOOK / "_assets" / "README.md").read_text(encoding="utf-8")
    for folder in THIRD_PARTY:
        assert any(path.is_relative_to(folder) for path in TRACKED), "the folder is there"
        assert (folder / "LICENSE").stat().st_size > 500
        assert f"`{folder.name}/`" in listed


def test_the_reference_lists_every_module() -> None:
    """Room by room, each under the heading of its room."""
    listed = re.findall(r"automodule:: ([\w.]+)", (BOOK / "reference.md").read_text("utf-8"))
    modules = [path.relative_to(ROOT).with_suffix("").parts for path in HELPERS]
    expected = {".".join(parts) for parts in modules if parts[-1] != "__init__"}
    assert {name for name in listed if name.startswith("helpers.")} == expected
    assert len(listed) == len(set(listed))


def test_the_readme_names_what_there_is() -> None:
    """Its files exist and define what it names in them, and its tree lists every module."""
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    files = re.findall(r"`((?:book|helpers|tests|assignments|benchmarks)/[\w./-]+)`", text)
    assert len(files) > 15
    for file in files:
        assert (ROOT / file).exists(), file
    named = re.findall(r"`(\w+)`(?: and `(\w+)`)? in `([\w/.]+)`", text)
    assert len(named) > 5
    for *names, file in named:
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in filter(None, names):
            assert re.search(rf"^(?:(?:def|class) )?{name}\b", source, re.MULTILINE), (name, file)
    # The tree: two more spaces a level, folders with a slash.
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("```\nhelpers/")[2]
    listed, room = set(), ""
    for indent, name in re.findall(r"^( {2,4})(\w+(?:/|\.py)) ", tree, re.MULTILINE):
        room = name if name.endswith("/") else room if len(indent) == 4 else ""
        listed.add(room + name if room != name else name)
    for path in HELPERS:
        name = path.relative_to(ROOT / "helpers").as_posix()
        assert name.endswith("__init__.py") or name in listed, name
