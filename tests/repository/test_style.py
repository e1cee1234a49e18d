"""Style: what ruff checks, and what it has no rule for."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.repository.tree import (
    MODULES,
    NOTEBOOKS,
    OURS,
    ROOT,
    SETS,
    cells,
    code,
    relative,
)

pytestmark = pytest.mark.unit

WIDTH = 100
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FENCED = re.compile(r"^ *```(?:bash|python|text)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
PROGRAMS = [path for path in MODULES if not path.is_relative_to(ROOT / "tests")]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing(command: list[str]) -> None:
    run = [sys.executable, "-m", "ruff", *command, "--no-cache", "--output-format=concise"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# Width


def lines_of(path: Path) -> Iterable[str]:
    """The lines of a source, or of the code in a page or a notebook, whose prose wraps."""
    if path.suffix == ".ipynb":
        text = "\n".join(cells(path, "code") + FENCED.findall("\n".join(cells(path, "markdown"))))
    elif path.suffix == ".md":
        text = "\n".join(FENCED.findall(path.read_text(encoding="utf-8")))
    else:
        text = path.read_text(encoding="utf-8")
    return text.splitlines()


def test_no_line_of_a_source_is_too_wide() -> None:
    suffixes = {".py", ".ipynb", ".md", ".js", ".css", ".toml", ".txt", ".yml", ".cff"}
    sources = [path for path in OURS if path.suffix in suffixes or path.name in ("Makefile", "run")]
    wide = []
    for path in sources:
        wide += [f"{relative(path)}: {line}" for line in lines_of(path) if len(line) > WIDTH]
    assert len(sources) > 100 and not wide, "\n".join(wide)


def test_a_line_that_is_too_wide_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{'a ' * WIDTH}\n\n```bash\n{'b ' * WIDTH}\n```\n", encoding="utf-8")
    assert list(lines_of(page)) == ["b " * WIDTH]


# Sizes


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_a_module_is_one_idea(path: Path) -> None:
    # A benchmark is one file on purpose: its cases are read beside each other.
    limit = 450 if path.is_relative_to(ROOT / "benchmarks") else 260
    assert path.read_text(encoding="utf-8").count("\n") <= limit


@pytest.mark.parametrize("path", NOTEBOOKS + SETS, ids=relative)
def test_a_code_cell_is_short_enough_to_follow(path: Path) -> None:
    assert max(len(source.splitlines()) for source in cells(path, "code")) <= 30


# Reading


def multi_line(source: str) -> Iterator[int]:
    """Lines where a comprehension begins that goes on over the next."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, COMPREHENSIONS) and node.end_lineno > node.lineno:
            yield node.lineno


def nested(source: str) -> Iterator[int]:
    """Lines where a comprehension holds another."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, COMPREHENSIONS):
            inner = [child for child in ast.walk(node) if isinstance(child, COMPREHENSIONS)]
            if len(inner) > 1:
                yield node.lineno


def without_signposts(source: str) -> Iterator[int]:
    """Lines where a function begins that has over 20 lines after its docstring, and no comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.start[0] for token in tokens if token.type == tokenize.COMMENT]
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        documented = ast.get_docstring(node) is not None
        first = node.body[0].end_lineno + 1 if documented else node.body[0].lineno
        inside = [line for line in comments if node.lineno < line <= node.end_lineno]
        if node.end_lineno - first + 1 > 20 and not inside:
            yield node.lineno


@pytest.mark.parametrize("rule", [multi_line, nested, without_signposts])
@pytest.mark.slow
def test_the_code_is_easy_to_follow(rule: Callable[[str], Iterator[int]]) -> None:
    found = []
    for path in PROGRAMS + NOTEBOOKS + SETS:
        for where, source in code(path):
            found += [f"{where}, line {line}" for line in rule(source)]
    assert not found, "\n".join(found)


LONG = "def f():\n    '''Doc.'''\n" + "    x = 1\n" * 20


@pytest.mark.parametrize(
    ("rule", "source", "found"),
    [
        (multi_line, "x = [a\n     for a in b]", [1]),
        (multi_line, "x = [a for a in b]\ny = 1", []),
        (nested, "x = 1\ny = {a: [c for c in a] for a in b}", [2]),
        (nested, "x = [a for b in c for a in b]", []),
        (without_signposts, LONG, []),
        (without_signposts, LONG + "    return x\n", [1]),
        (without_signposts, LONG + "    # A step.\n    return x\n", []),
    ],
)
def test_code_that_is_not_easy_to_follow_would_be_found(rule, source, found) -> None:
    assert list(rule(source)) == found


def test_chapters_have_few_comprehensions() -> None:
    count = lines = 0
    for path in NOTEBOOKS:
        for _, source in code(path):
            lines += sum(bool(line.strip()) for line in source.splitlines())
            nodes = ast.walk(ast.parse(source))
            count += sum(isinstance(node, COMPREHENSIONS) for node in nodes)
    assert lines > 500 and 100 * count / lines < 4
