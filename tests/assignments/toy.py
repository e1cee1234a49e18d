"""A set of one's own for the tests: part n asks for a function that multiplies a list by n.

Part 6 asks for Wilson's interval, which the book's own ``share_and_interval`` gives.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARTS = range(1, 5)
RIGHT = {n: f"def times{n}(x):\n    return [{n} * one for one in x]" for n in PARTS}
WRITTEN = "Because multiplying is repeated adding."
STUB = 'def times{n}(x):\n    """A list, {n} times as large."""'
SHARE = """def share6(hits):
    n, p, z = len(hits), sum(hits) / len(hits), 1.959964
    reach = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = p + z**2 / (2 * n) - reach, p + z**2 / (2 * n) + reach
    return p, low / (1 + z**2 / n), high / (1 + z**2 / n)"""
SHARE_CHECK = """own_work(share6, 'share_and_interval')
near(share6([True] * 10)[1], 0.7225, 'ten hits of ten: the interval begins at 0.7225', 1e-3)
### BEGIN HIDDEN TESTS
for hits, n in [(0, 7), (3, 8), (19, 40)]:
    given = [True] * hits + [False] * (n - hits)
    near(share6(given), list(book.share_and_interval(given)), f'wrong for {hits} of {n}')
### END HIDDEN TESTS"""
HIDDEN = 12345.25  # an input that students do not see


def marked(cell, grade_id: str, **more):
    """A cell with nbgrader's metadata."""
    metadata = {"schema_version": 3, "grade_id": grade_id, "task": False}
    for key in ("grade", "solution", "locked"):
        metadata[key] = False
    cell.metadata["nbgrader"] = metadata | more
    return cell


def write_source(folder: Path, own: tuple[int, ...] = (1, 2)) -> Path:
    """Write the source of the set into a folder of sources, and return that folder.

    Args:
        own: parts, besides part 6, that are to be written out: a sandbox more for each.
    """
    setup = "from helpers.results import intervals as book\n"
    setup += "from checks import must_keep, near, own_work"
    cells = [new_markdown_cell("# Toy set"), marked(new_code_cell(setup), "setup", locked=True)]
    for n in PARTS:
        answer = (
            STUB.format(n=n) + f"\n    ### BEGIN SOLUTION\n    return [{n} * one for one in x]\n"
            "    ### END SOLUTION"
        )
        alone = f"own_work(times{n}, 'rank_correlation')\n" if n in own else ""
        check = (
            f"{alone}near(times{n}([2.0, 1.0]), [{2 * n}, {n}], '{n} times 2 and 1')\n"
            "### BEGIN HIDDEN TESTS\n"
            f"given = [{HIDDEN}, -3.0]\n"
            "with must_keep(given, 'the list was changed'):\n"
            f"    got = times{n}(given)\n"
            f"near(got, [{n} * one for one in given], '{n} times other numbers')\n"
            "### END HIDDEN TESTS"
        )
        cells.append(new_markdown_cell(f"## Part {n}: times {n}"))
        cells.append(marked(new_code_cell(answer), f"part{n}", solution=True))
        options = {"grade": True, "locked": True, "points": 2}
        cells.append(marked(new_code_cell(check), f"part{n}-check", **options))
    body = SHARE.partition("\n")[2]
    answer = f"def share6(hits):\n    ### BEGIN SOLUTION\n{body}\n    ### END SOLUTION"
    cells.append(new_markdown_cell("## Part 6: a share with its interval"))
    cells.append(marked(new_code_cell(answer), "part6", solution=True))
    options = {"grade": True, "locked": True, "points": 2}
    cells.append(marked(new_code_cell(SHARE_CHECK), "part6-check", **options))
    cells.append(new_markdown_cell("## Part 5: written\n\nWhy?"))
    written = {"grade": True, "solution": True, "points": 5}
    cells.append(marked(new_markdown_cell("Because of the reference."), "written5", **written))
    metadata = {"grading": {"cell_seconds": 2, "total_seconds": 60, "own_seconds": 2}}
    path = folder / "toy" / "toy.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return folder


def student_version(source: Path) -> dict:
    """The set as students get it, as JSON data."""
    notebook = nbformat.read(source / "toy" / "toy.ipynb", as_version=4)
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("solution"):
            stub = f"{cell.source.partition('    ### BEGIN')[0]}    # YOUR CODE HERE\n"
            code = cell.cell_type == "code"
            cell.source = f"{stub}    raise NotImplementedError()" if code else "YOUR ANSWER HERE"
        cell.source = cell.source.partition("### BEGIN HIDDEN")[0].rstrip()
    return json.loads(json.dumps(notebook))


def answered(version: dict, answers: dict[int, str] | None = None, written: str = WRITTEN) -> dict:
    """A student's notebook with answers in their cells."""
    notebook, answers = copy.deepcopy(version), RIGHT | (answers or {})
    for n, text in answers.items():
        at(notebook, f"part{n}")["source"] = text
    at(notebook, "part6")["source"] = SHARE
    at(notebook, "written5")["source"] = written
    return notebook


def index(notebook: dict, grade_id: str) -> int:
    for number, cell in enumerate(notebook["cells"]):
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == grade_id:
            return number
    raise KeyError(grade_id)


def at(notebook: dict, grade_id: str) -> dict:
    return notebook["cells"][index(notebook, grade_id)]


def code(source: str, **more) -> dict:
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], **more}


def text(source: str, **more) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source, **more}
