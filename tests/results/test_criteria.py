"""A verdict "holds in part" is granted by a rule that ``claims.toml`` states, after "in part:".

Read from the code cells of the chapters: a claim whose verdict can be "holds in part" states the
rule, and no other does; and its box stands above it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

from helpers.results.claims import INVENTORY

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


def claims_of(code: str) -> tuple[list[tuple[list[str], bool]], set[str]]:
    """Ids of each claim, and whether it can hold in part; and the ids that have a box.

    A claim whose id is a variable stands for those of the calls of the function that it is in.
    """
    granting, found, boxes = set(), [], set()
    tree = ast.parse(code)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for statement in tree.body:
        for call in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "how_judged":
                boxes |= {ast.literal_eval(argument) for argument in call.args}
            if ast.unparse(call.func) == "claim":
                ids = [call.args[0]]
                if isinstance(statement, ast.FunctionDef):
                    users = [use for use in calls if ast.unparse(use.func) == statement.name]
                    ids = [use.args[0] for use in users]
                given = {keyword.arg: keyword.value for keyword in call.keywords}
                assert "criterion" not in given, "a rule is stated in claims.toml"
                if "verdict" in given:  # others are judged by rules that test_rules.py reads
                    ids = [ast.literal_eval(id) for id in ids]
                    assert set(ids) <= boxes, "the box stands above the claim"
                    found.append((ids, grants(given["verdict"], granting)))
        # Names that later claims may use
        if isinstance(statement, ast.FunctionDef) and grants(statement, granting):
            granting.add(statement.name)
        if isinstance(statement, ast.Assign) and grants(statement.value, granting):
            target = ast.walk(statement.targets[0])
            granting |= {part.id for part in target if isinstance(part, ast.Name)}
    return found, boxes


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_what_holds_in_part_is_stated(chapter: Path) -> None:
    found, boxes = claims_of(code_of(chapter))
    assert boxes or chapter.stem in ("errata", "edits", "early-edits", "one-ruler")
    for ids, can in found:
        for id in ids:
            assert ("in part:" in INVENTORY[id]["rule"]) == can, id


BOX = "how_judged('AS-1', 'AS-7')\n"
RULE = "def rule(x):\n    return verdict(x > 1, in_part=x > 0)\n\nword = rule(2)\n"


@pytest.mark.parametrize("granted", ["verdict(a, in_part=b)", "rule(3)", "word"])
def test_a_rule_that_grants_would_be_found(granted: str) -> None:
    found, boxes = claims_of(f"{BOX}{RULE}one = claim('AS-7', verdict={granted})")
    assert found == [(["AS-7"], True)] and boxes == {"AS-1", "AS-7"}
    assert claims_of(f"{BOX}one = claim('AS-7', verdict=verdict(a))")[0] == [(["AS-7"], False)]


def test_a_claim_above_its_box_or_with_words_of_its_own_would_be_found() -> None:
    with pytest.raises(AssertionError, match="box stands above"):
        claims_of(f"one = claim('AS-1', verdict=word)\n{BOX}")
    with pytest.raises(AssertionError, match="stated in claims.toml"):
        claims_of(f"{BOX}one = claim('AS-1', verdict=word, criterion='x')")
