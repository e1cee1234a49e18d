"""A verdict "holds in part" is granted by a rule that its criterion states.

Read out of the chapters' code cells: every ``claim`` whose verdict can be "holds in part" says in its criterion what that takes,
after the words "in part:"; and none says so whose verdict cannot.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.unit
CHAPTERS = sorted((Path(__file__).parents[2] / "book").glob("*/*.ipynb"))


def code_of(chapter: Path) -> str:
    """All code cells of a notebook, one after the other."""
    cells = nbformat.read(chapter, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def grants(node: ast.AST, granting: set[str]) -> bool:
    """Whether an expression passes ``in_part=`` or uses a name behind which that is done."""
    return any(
        (isinstance(part, ast.keyword) and part.arg == "in_part")
        or (isinstance(part, ast.Name) and part.id in granting)
        for part in ast.walk(node)
    )


def text_of(node: ast.AST, texts: dict[str, str]) -> str:
    """The constant text in an expression, names of texts included."""
    parts = [part for part in ast.walk(node) if isinstance(part, ast.Constant | ast.Name)]
    return " ".join(
        texts.get(part.id, "") if isinstance(part, ast.Name) else str(part.value) for part in parts
    )


def claims_of(code: str) -> Iterator[tuple[str, bool, str]]:
    """What each ``claim`` of a chapter says for its id, whether it can hold in part, and its criterion."""
    tree, granting, texts = ast.parse(code), set(), {}
    for node in tree.body:  # in the order of the page
        if isinstance(node, ast.FunctionDef) and grants(node, granting):
            granting.add(node.name)
        if isinstance(node, ast.Assign) and not _claims(node):
            names = [
                part.id
                for target in node.targets
                for part in ast.walk(target)
                if isinstance(part, ast.Name)
            ]
            texts |= dict.fromkeys(names, text_of(node.value, texts))
            granting |= set(names) if grants(node.value, granting) else set()
        for call in _claims(node):
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            yield (
                ast.unparse(call.args[0]),
                grants(given["verdict"], granting),
                text_of(given["criterion"], texts),
            )


def _claims(node: ast.AST) -> list[ast.Call]:
    return [
        part
        for part in ast.walk(node)
        if isinstance(part, ast.Call) and ast.unparse(part.func) == "claim"
    ]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_what_holds_in_part_is_stated(chapter: Path) -> None:
    found = list(claims_of(code_of(chapter)))
    assert found or chapter.stem == "errata"
    assert not [name for name, can, criterion in found if can != ("in part:" in criterion)]


RULE = "def rule(x):\n    return verdict(x > 1, in_part=x > 0)\n\nword, y = rule(2), 1\n"
PLANTED = "claim_1 = claim('AS-1', verdict={}, criterion={})"


@pytest.mark.parametrize("granted", ["verdict(a, in_part=b)", "rule(3)", "word"])
def test_a_rule_that_is_not_stated_would_be_found(granted: str) -> None:
    for criterion, stated in (
        ("'above 1'", False),
        ("f'above {y}; in part: above 0'", True),
        ("TEXT", True),
    ):
        code = "TEXT = 'above 1; in part: above 0'\n" + RULE + PLANTED.format(granted, criterion)
        assert [(can, "in part:" in text) for _, can, text in claims_of(code)] == [(True, stated)]


def test_a_rule_that_is_stated_and_not_granted_would_be_found() -> None:
    code = RULE + PLANTED.format("verdict(a)", "'above 1; in part: above 0'")
    assert [(can, "in part:" in text) for _, can, text in claims_of(code)] == [(False, True)]
