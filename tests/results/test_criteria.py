"""A verdict "holds in part" is granted by a rule that its criterion states, after "in part:".

Read from the code cells of the chapters: a claim whose verdict can be "holds in part" states the
rule, and no other does.
"""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.unit
CHAPTERS = sorted((Path(__file__).parents[2] / "book").glob("*/*.ipynb"))


def code_of(chapter: Path) -> str:
    cells = nbformat.read(chapter, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def grants(node: ast.AST, granting: set[str]) -> bool:
    """Whether an expression passes ``in_part=``, or uses a name that does."""
    for part in ast.walk(node):
        if isinstance(part, ast.keyword) and part.arg == "in_part":
            return True
        if isinstance(part, ast.Name) and part.id in granting:
            return True
    return False


def text_of(node: ast.AST, texts: dict[str, str]) -> str:
    """The constant text in an expression, with that of its names."""
    words = []
    for part in ast.walk(node):
        if isinstance(part, ast.Constant):
            words.append(str(part.value))
        elif isinstance(part, ast.Name):
            words.append(texts.get(part.id, ""))
    return " ".join(words)


def claims_of(code: str) -> list[tuple[str, bool, bool]]:
    """Id of each claim, whether it can hold in part, and whether its criterion says when."""
    granting, texts, found = set(), {}, []
    for statement in ast.parse(code).body:
        claims = []
        for call in ast.walk(statement):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "claim":
                claims.append(call)
        for call in claims:
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if "judged" in given:  # by a rule that tests/results/test_rules.py reads
                continue
            stated = "in part:" in text_of(given["criterion"], texts)
            found.append((ast.unparse(call.args[0]), grants(given["verdict"], granting), stated))
        # Names that later claims may use
        if isinstance(statement, ast.FunctionDef) and grants(statement, granting):
            granting.add(statement.name)
        if isinstance(statement, ast.Assign) and not claims:
            target = ast.walk(statement.targets[0])
            bound = [part.id for part in target if isinstance(part, ast.Name)]
            texts |= dict.fromkeys(bound, text_of(statement.value, texts))
            if grants(statement.value, granting):
                granting |= set(bound)
    return found


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_what_holds_in_part_is_stated(chapter: Path) -> None:
    found = claims_of(code_of(chapter))
    assert found or chapter.parent.stem == "observable-propagation"
    assert not [id for id, can, stated in found if can != stated]


RULE = "def rule(x):\n    return verdict(x > 1, in_part=x > 0)\n\nword, y = rule(2), 1\n"
RULE += "TEXT = 'above 1; in part: above 0'\n"


@pytest.mark.parametrize("granted", ["verdict(a, in_part=b)", "rule(3)", "word"])
@pytest.mark.parametrize("criterion", ["'above 1'", "f'above {y}; in part: above 0'", "TEXT"])
def test_a_rule_that_is_not_stated_would_be_found(granted: str, criterion: str) -> None:
    code = f"{RULE}one = claim('AS-1', verdict={granted}, criterion={criterion})"
    assert claims_of(code) == [("'AS-1'", True, criterion != "'above 1'")]


def test_a_rule_that_is_stated_and_not_granted_would_be_found() -> None:
    code = f"{RULE}one = claim('AS-1', verdict=verdict(a), criterion=TEXT)"
    assert claims_of(code) == [("'AS-1'", False, True)]
