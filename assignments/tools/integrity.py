"""What a person should look at: suspicious source, and submissions that resemble each other.

Neither is a verdict, and no points depend on it.
"""

from __future__ import annotations

import ast
import csv
import io
from collections import Counter
from itertools import combinations
from pathlib import Path

from assignments.tools.frame import Frame, parse
from assignments.tools.records import Record, write

MODULES = "gc ctypes inspect importlib socket subprocess multiprocessing builtins pickle".split()
MODULES += "sys inside runpy marshal pkgutil".split()
CALLS = "exec eval compile __import__ globals get_ipython setattr delattr open breakpoint".split()
ATTRIBUTES = "__code__ __globals__ __closure__ __subclasses__ f_back f_globals user_ns _getframe"
SYSTEM = "sys.modules os.environ os.kill os.fork os.forkpty os.system os.popen os.pipe".split()
PATCHED = "torch np numpy checks helpers book json pickle builtins inside wire".split()


def suspicious(source: str) -> list[str]:
    """Names in a student's code that an answer has no need of."""
    tree, found = parse(source), []
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [f"import {name}" for name in names if name.split(".")[0] in MODULES]
        elif isinstance(node, ast.Name) and node.id in [*CALLS, "gc", "ctypes"]:
            found.append(node.id)
        elif isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if node.attr in ATTRIBUTES.split() or text in SYSTEM:
                found.append(text[:40])
            if isinstance(node.ctx, ast.Store) and text.split(".")[0] in PATCHED:
                found.append(f"{text[:40]} = …")
        elif isinstance(node, ast.ClassDef) and any("Tensor" in ast.unparse(b) for b in node.bases):
            found.append(f"class {node.name}(Tensor)")
    return list(dict.fromkeys(found))[:10]


class _Plain(ast.NodeTransformer):
    """Takes away what is easily changed: names, docstrings, annotations."""

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name("n", node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg("a")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        body = node.body
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body = body[1:] or [ast.Pass()]
        node.name, node.body, node.returns = "f", body, None
        return self.generic_visit(node)


def fingerprint(source: str) -> set[str]:
    """The statements of a piece of code, normalised; short ones are everybody's."""
    tree = parse(source)
    if tree is None:
        return set()
    try:
        plain = _Plain().visit(tree)
        found = [ast.dump(node) for node in ast.walk(plain) if isinstance(node, ast.stmt)]
    except RecursionError:
        return set()
    return {text for text in found if len(text) > 120}


def similar(records: list[Record], frame: Frame, least: float = 0.6) -> list[tuple]:
    """Pairs of students whose code is alike: (student, student, share, parts).

    What the book gives, and what more than a third of the class has, does not count; the share is
    of the rarer statements of the smaller submission.
    """
    prints = {}
    given = set()
    for cell in frame.cells:
        given |= fingerprint(cell.source) if cell.cell_type == "code" else set()
    for record in records:
        whole = set()
        for part in frame.parts.values():
            if not part.written:
                whole |= fingerprint(record.answers.get(part.id, {}).get("text", "")) - given
        prints[record.student] = whole
    counts = Counter(text for whole in prints.values() for text in whole)
    common = {text for text, count in counts.items() if count > max(3, len(prints) / 3)}
    pairs = []
    for one, two in combinations(sorted(prints), 2):
        a, b = prints[one] - common, prints[two] - common
        if min(len(a), len(b)) >= 3 and (share := len(a & b) / min(len(a), len(b))) >= least:
            pairs.append((one, two, round(share, 2), len(a & b)))
    return sorted(pairs, key=lambda pair: -pair[2])


def write_similar(records: list[Record], frames: dict[str, Frame], path: Path) -> None:
    """Write the pairs of every set as a table."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["set", "student", "other", "share", "statements"])
    for name, frame in frames.items():
        theirs = [record for record in records if record.set == name]
        table.writerows([name, *pair] for pair in similar(theirs, frame))
    write(path, text.getvalue())
