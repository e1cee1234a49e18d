"""What the repository promises of itself: clean notebooks, pins that agree, modules of one idea, nothing left behind."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from sphinx_external_toc.parsing import parse_toc_yaml

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(path for path in BOOK.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
SETS = sorted(
    (ROOT / "assignments" / "source").glob("*/*.ipynb")
)  # the course's, with solutions; no pages of the book
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
DIRECT = [
    Requirement(line)
    for line in [
        *PROJECT["project"]["dependencies"],
        *(line for extra in EXTRAS.values() for line in extra),
    ]
]
# What a CUDA build of torch brings along is left to torch, which pins it.
CUDA = re.compile(r"nvidia|triton|cuda")


def pinned() -> dict[str, str]:
    """The pins of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def tracked() -> list[Path]:
    """Every file that git keeps, or would keep with the next commit."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    names = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [path for name in names if (path := ROOT / name).is_file()]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Notebooks


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS and SETS


@pytest.mark.parametrize("path", NOTEBOOKS + SETS, ids=relative)
def test_a_notebook_is_valid_and_holds_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS + SETS, ids=relative)
def test_a_code_cell_is_short_enough_to_follow(path: Path) -> None:
    cells = [
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
    ]
    assert max(len(source.splitlines()) for source in cells) <= 45


@pytest.mark.parametrize("path", NOTEBOOKS + SETS, ids=relative)
def test_a_notebook_runs_on_the_environments_own_kernel(path: Path) -> None:
    assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set(parse_toc_yaml(BOOK / "_toc.yml"))
    pages = NOTEBOOKS + [path for path in BOOK.rglob("*.md") if "_assets" not in path.parts]
    assert {path.relative_to(BOOK).with_suffix("").as_posix() for path in pages} == listed


# Packages


def test_direct_dependencies_are_pinned_as_in_constraints() -> None:
    pins = pinned()
    for requirement in DIRECT:
        assert str(requirement.specifier) == f"=={pins[canonicalize_name(requirement.name)]}", (
            requirement
        )


def test_the_build_tool_is_pinned() -> None:
    assert all(
        re.fullmatch(r"[\w-]+==[\d.]+", line) for line in PROJECT["build-system"]["requires"]
    )


def test_constraints_choose_no_build_of_torch() -> None:
    """A local version or a CUDA package would bind the book to one kind of machine."""
    assert not [name for name, version in pinned().items() if "+" in version or CUDA.search(name)]


def test_conda_gets_the_same_set() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert sorted(pip) == ["--constraint constraints.txt", "--editable .[test]"], (
        "every version is that of constraints.txt"
    )
    python = next(
        Requirement(entry.replace("=", "==", 1)) for entry in conda if entry.startswith("python=")
    )
    version = next(iter(python.specifier)).version
    assert Version(version) in SpecifierSet(PROJECT["project"]["requires-python"])


def test_what_is_installed_is_what_is_pinned_and_nothing_is_missing() -> None:
    """Follows the requirements through everything installed, as pip does, and holds each version against its pin."""
    pins, seen, wrong = pinned(), set(), []
    waiting = [
        (canonicalize_name(requirement.name), frozenset(requirement.extras))
        for requirement in DIRECT
    ]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen or CUDA.search(name):
            continue
        seen.add((name, extras))
        package = metadata.distribution(name)
        if Version(package.version).public != pins.get(name):
            wrong.append(f"{name}: installed {package.version}, pinned {pins.get(name)}")
        for line in package.requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in extras | {""}
            ):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    assert not wrong
    assert len(seen) > len(DIRECT)


def test_what_helpers_import_is_a_direct_dependency() -> None:
    distributions = metadata.packages_distributions()
    direct = {canonicalize_name(requirement.name) for requirement in DIRECT}
    missing = set()
    for path in (ROOT / "helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            else:
                continue
            for name in names:
                owners = {
                    canonicalize_name(owner) for owner in distributions.get(name.split(".")[0], [])
                } - {"steering-book"}
                if owners and not owners & direct:
                    missing.add(f"{path.name} imports {name}, of {', '.join(sorted(owners))}")
    assert not missing


# Sources


@pytest.mark.parametrize("path", sorted((ROOT / "helpers").rglob("*.py")), ids=relative)
def test_a_helper_is_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize(
    "path",
    [
        *sorted((ROOT / "assignments/tools").glob("*.py")),
        *sorted((ROOT / "benchmarks").glob("*.py")),
    ],
    ids=relative,
)
def test_a_tool_is_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_every_set_has_a_rubric() -> None:
    rubrics = {path.stem for path in (ROOT / "assignments" / "rubrics").glob("*.md")}
    assert rubrics == {path.stem for path in SETS}


def test_helpers_never_edit_the_import_path() -> None:
    for path in (ROOT / "helpers").rglob("*.py"):
        assert "sys." + "path" not in path.read_text(encoding="utf-8"), path


def test_no_file_names_the_place_it_was_written_in() -> None:
    """No folder of one person's machine and no note to self. Pieced together, so as not to find itself."""
    left_behind = re.compile(
        "|".join([r"/(?:home|root|Users)" + r"/\w", r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b"])
    )
    found = []
    for path in tracked():
        if (
            path.is_relative_to(BOOK / "_assets")
            and path.suffix == ".js"
            and path.parent.name != "js"
        ):
            continue  # other people's code, unchanged
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{relative(path)}: {match[0]}" for match in left_behind.finditer(text)]
    assert not found


def test_files_of_others_come_with_their_licence() -> None:
    for folder in ("katex", "icons"):
        assert (BOOK / "_assets" / folder / "LICENSE").stat().st_size > 500
        assert f"`{folder}/`" in (BOOK / "_assets" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.parent != BOOK], ids=lambda path: path.stem
)
def test_every_exercise_has_a_folded_hint(path: Path) -> None:
    cells = [
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    ]
    (text,) = [
        source.partition("## Exercises\n")[2] for source in cells if "## Exercises\n" in source
    ]
    exercises = re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]
    assert exercises and all(
        "<details><summary>Hint</summary>" in exercise for exercise in exercises
    )


def test_every_helper_is_in_the_reference() -> None:
    listed = set(
        re.findall(
            r"automodule:: (helpers\.\w+)", (BOOK / "reference.md").read_text(encoding="utf-8")
        )
    )
    # Sphinx' own extensions have nothing for a reader.
    inner = {
        "helpers.__init__",
        "book._ext.scorecard_page",
        "book._ext.katex",
        "book._ext.descriptions",
    }
    assert listed == {f"helpers.{path.stem}" for path in (ROOT / "helpers").rglob("*.py")} - inner
