"""A set as the grader sees it: its parts, with checks, points and the names that are asked for."""

from __future__ import annotations

import ast
import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from assignments.tools.sources import SOURCE, marks, read_set, regions, shown

MAX_TRANSFORM = 2e6  # characters × magics: about a second


@dataclass(frozen=True)
class Part:
    """One gradable part.

    Attributes:
        id: "part1" or "written6".
        title: its heading.
        points: that it is worth.
        names: functions that the answer defines; none for a written answer.
        visible, hidden: the two halves of its check, as source.
        forbidden: the book's functions that the answer is to do without.
    """

    id: str
    title: str
    points: float
    names: tuple[str, ...] = ()
    visible: str = ""
    hidden: str = ""

    @property
    def written(self) -> bool:
        return not self.names

    @property
    def forbidden(self) -> list[str]:
        named = re.findall(r"own_work\(\w+, (.+)\)", self.visible)
        return re.findall(r"[\"'](\w+)[\"']", " ".join(named))


@dataclass(frozen=True)
class Frame:
    """One set.

    Attributes:
        cells: of its source.
        parts: by id, in order.
        sections: the part, if any, that each cell belongs to.
    """

    name: str
    cells: list[NotebookNode]
    parts: dict[str, Part]
    sections: list[str]
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(part.points for part in self.parts.values())


def read_frame(name: str, source: Path = SOURCE) -> Frame:
    """Read the source of a set."""
    notebook = read_set(name, source)
    parts, title, answer = {}, name, None
    sections: list[str] = []  # for now the number of the heading that each cell is under
    part_of = {}
    for cell in notebook.cells:
        mark, grade_id = marks(cell), marks(cell).get("grade_id", "")
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            title = cell.source.splitlines()[0].lstrip("# ")
        sections.append(title)
        if mark.get("solution") and not mark.get("grade"):
            answer = cell.source
        if not mark.get("grade"):
            continue
        part = grade_id.removesuffix("-check")
        part_of[title] = part
        parts[part] = Part(part, title, mark.points)
        if cell.cell_type == "code":
            hidden = [line for line, kind in regions(cell.source) if kind == "HIDDEN TESTS"]
            names = tuple(bound(answer, only_functions=True))
            visible, hidden = shown(cell.source), "\n".join(hidden)
            parts[part] = Part(part, title, mark.points, names, visible, hidden)
    sections = [part_of.get(title, "") for title in sections]
    limits = dict(notebook.metadata["grading"])
    return Frame(name, notebook.cells, parts, sections, limits)


def parse(source: str) -> ast.Module | None:
    """The syntax tree of a cell, magics included; None if it has none."""
    if source.lstrip().startswith("%%"):  # %%time and the like: what they run
        source = source.lstrip().partition("\n")[2]
    errors = (SyntaxError, ValueError, RecursionError, MemoryError, RuntimeError)
    with contextlib.suppress(*errors):
        return ast.parse(source)
    # IPython reads the whole cell again for each magic: many in a long cell would take hours.
    magics = len(re.findall(r"(?m)^\s*[%!?]|=\s*[%!]|\?\s*$", source))
    if len(source) * (1 + magics) > MAX_TRANSFORM:
        return None
    with contextlib.suppress(*errors):
        return ast.parse(TransformerManager().transform_cell(source))
    return None


def only_defines(source: str) -> bool:
    """Whether a cell has nothing but imports, functions and classes, which take hardly any time."""
    tree = parse(source)
    kinds = ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    return tree is not None and all(isinstance(node, kinds) for node in tree.body)


def bound(source: str, only_functions: bool = False) -> list[str]:
    """Names that a cell defines at its top level, in order."""
    tree, names = parse(source), []
    waiting = list(tree.body) if tree else []
    # Statements at the top level, and those inside if, try, with and loops.
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.append(node.name)
        elif only_functions:
            continue
        elif isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                names += [one.id for one in ast.walk(target) if isinstance(one, ast.Name)]
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    waiting.append(child)
    return list(dict.fromkeys(names))
