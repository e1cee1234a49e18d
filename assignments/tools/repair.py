"""Cells that an editor or a hasty hand has damaged, and cells that were never filled in."""

from __future__ import annotations

import ast
import textwrap

from assignments.tools.frame import bound, parse
from assignments.tools.reading import Cell
from assignments.tools.sources import STUB

STUB_ERROR = ast.parse(STUB).body[0].exc.func.id  # what a function raises that was left open
# Byte order marks, zero-width characters, and spaces that are none to Python.
UNSEEN = {0xFEFF: None, 0x200B: None, 0x200C: None, 0x2060: None, 0xA0: " ", 0x202F: " "}


def mended(cells: list[Cell], notes: list[str]) -> list[Cell]:
    """Join cells that were split inside a function; take stray characters and indentation away."""
    kept: list[Cell] = []
    for cell in cells:
        if cell.kind == "code" and parse(cell.source) is None:
            visible = cell.source.translate(UNSEEN)
            if visible != cell.source and parse(visible) is not None:
                cell.source = visible
                notes.append("invisible characters, as copies from a web page have, were left out")
        before = next((one for one in reversed(kept) if one.source.strip()), None)
        dedented = textwrap.dedent(cell.source.strip("\n"))
        indented = dedented != cell.source.strip("\n")
        if cell.kind == "code" and (indented or parse(cell.source) is None):
            joined = f"{before.source}\n{cell.source}" if before else ""
            if indented and bound(dedented, only_functions=True):
                cell.source = dedented
            elif before and before.kind == "code" and parse(joined) is not None:
                before.source, before.images = joined, before.images + cell.images
                notes.append("a cell that was split inside a function was joined again")
                continue
        kept.append(cell)
    return kept


def is_stub(source: str) -> bool:
    """Whether a cell only defines functions that do nothing yet, and constants."""
    tree = parse(source)
    functions = [one for one in tree.body if isinstance(one, ast.FunctionDef)] if tree else []
    for one in tree.body if tree else ():
        constant = isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant)
        if not constant and one not in functions:
            return False
    for one in (line for function in functions for line in function.body):
        text = isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
        if not (text or isinstance(one, (ast.Pass, ast.Raise))):
            return False
        if isinstance(one, ast.Raise) and STUB_ERROR not in ast.unparse(one):
            return False  # another error is an answer, if a wrong one
    return bool(functions)
