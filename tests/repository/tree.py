"""The repository's files, and the code in them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"


def _tracked() -> list[Path]:
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others"]
    command += ["--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


# Every file that git tracks, or would track with the next commit.
TRACKED = _tracked()
THIRD_PARTY = [BOOK / "_assets" / name for name in ("katex", "icons")]
OURS = [path for path in TRACKED if not any(map(path.is_relative_to, THIRD_PARTY))]

MODULES = [path for path in OURS if path.suffix == ".py"]
HELPERS = [path for path in MODULES if path.is_relative_to(ROOT / "helpers")]
NOTEBOOKS = [path for path in OURS if path.suffix == ".ipynb" and path.is_relative_to(BOOK)]
CHAPTERS = [path for path in NOTEBOOKS if path.parent != BOOK]  # in the papers' folders
# The course's, with solutions; they are no pages of the book.
SETS = [path for path in OURS if path.match("assignments/source/*/*.ipynb")]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def cells(path: Path, kind: str) -> list[str]:
    """The sources of a notebook's cells of one kind, "code" or "markdown"."""
    notebook = nbformat.read(path, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def code(path: Path) -> Iterator[tuple[str, str]]:
    """Where and what: the Python of a module, or of each code cell of a notebook."""
    if path.suffix == ".py":
        yield relative(path), path.read_text(encoding="utf-8")
        return
    for number, source in enumerate(cells(path, "code"), 1):
        # Lines for IPython are no Python; blank ones keep the numbers of the others.
        lines = ["" if line.lstrip()[:1] in ("%", "!") else line for line in source.splitlines()]
        yield f"{relative(path)}, code cell {number}", "\n".join(lines)
