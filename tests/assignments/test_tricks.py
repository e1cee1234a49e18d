"""No submission earns a part that it does not answer; odd honest ones earn every part.

One class hands in the toy set (``class_of_tricks``); it is graded once, in real sandboxes.
"""

from __future__ import annotations

import sys
from types import FunctionType

import pytest
import toy
from class_of_tricks import BORROWED, HONEST, MORE_TRICKS, write_tricks

pytest.importorskip("psutil", reason="grading needs the extra: pip install -e '.[grading]'")

from assignments.inside.taken import take_away
from assignments.tools.alone import again
from assignments.tools.grade import Run, grade_all
from assignments.tools.matching import Step
from assignments.tools.records import Row

# In one process with the tests of grading, which use the same nursery.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("grading")]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """The graded class, by student."""
    folder = tmp_path_factory.mktemp("tricks")
    source = toy.write_source(folder / "source", own=(1,))
    write_tricks(folder / "in", toy.student_version(source))
    book = grade_all(folder / "in", folder / "out", Run(memory_gb=2.5, source=source), jobs=0)
    return {row.record.student: row for row in book.rows()}


@pytest.mark.parametrize("name", BORROWED)
def test_the_book_s_own_function_earns_nothing_however_it_is_called(rows, name: str) -> None:
    row = rows[f"borrowed-{name}"]
    assert row.parts["part6"] in (0, None), row.record
    assert row.record.reasons["part6"], "the student is told why"
    others = [row.parts[f"part{n}"] for n in toy.PARTS]
    assert others == [2, 2, 2, 2] or name in ("patched-call", "answers-by-descriptor")


@pytest.mark.parametrize("name", MORE_TRICKS)
def test_a_look_round_earns_nothing(rows, name: str) -> None:
    row = rows[f"trick-{name}"]
    assert row.parts["part1"] == 0 and row.record.reasons["part1"], row.record


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_answer_keeps_its_points_however_odd(rows, name: str) -> None:
    row = rows[f"honest-{name}"]
    points = [row.parts[part] for part in ("part1", "part2", "part3", "part4", "part6")]
    assert points == [2, 2, 2, 2, 2], (row.record.reasons, row.record.notes)


def test_what_only_a_person_can_decide_waits_for_one_and_says_why(rows) -> None:
    """A table that the book's function filled is right, and was not written out."""
    row = rows["borrowed-table"]
    assert row.parts["part6"] is None and row.to_mark
    assert "a person reads it" in row.record.reasons["part6"]


def test_an_answer_that_needs_a_module_which_is_not_here_waits_for_a_person(rows) -> None:
    row = rows["foreign"]
    assert row.parts["part6"] is None and row.parts["part1"] == 2
    assert "not installed here: a person runs it" in row.record.reasons["part6"]


@pytest.fixture
def a_book() -> dict:
    """Two modules of a book: one function, plain, decorated and as a method, under other names."""
    plain, other = type(sys)("helpers.of_a_test"), type(sys)("helpers.of_another_test")
    text = """
from contextlib import contextmanager
from functools import cached_property, lru_cache
def gap(x): return x - 1
@contextmanager
def edit(x): yield x
@lru_cache
def kept(x): return x
def untouched(x): return x
class Base:
    def below(self): return 1
class Whole(Base):
    def __init__(self, x): self.x = x
    @property
    def there(self): return 2
    @cached_property
    def later(self): return 3
    @classmethod
    def of(cls): return cls(0)
class Part:
    def only_a_method(self): return 4
"""
    exec(text, vars(plain))
    vars(other)["renamed"] = plain.gap
    sys.modules |= {plain.__name__: plain, other.__name__: other}
    yield vars(plain) | vars(other)
    del sys.modules[plain.__name__], sys.modules[other.__name__]


def test_a_function_that_was_taken_away_is_nowhere_in_the_process(a_book) -> None:
    gap, kept, part = a_book["gap"], a_book["kept"], a_book["Part"]()
    code = gap.__code__
    copy = FunctionType(code, {})
    assert copy(3) == 2
    del copy
    held = sys.getrefcount(code)
    take_away(["gap", "edit", "kept", "Whole", "only_a_method"])
    assert sys.getrefcount(code) == held - 1, "its code would be freed, but for this test"
    whole = object.__new__(a_book["Whole"])
    for call in (
        *(lambda: gap(3), lambda: a_book["renamed"](3), lambda: a_book["edit"](3).__enter__()),
        *(lambda: kept(3), lambda: a_book["Whole"](3), lambda: a_book["Whole"].of()),
        *(lambda: whole.there, lambda: whole.later, whole.below, part.only_a_method),
    ):
        with pytest.raises(AssertionError, match="calls the book's own"):
            call()
    assert a_book["untouched"](3) == 3


def test_slow_cells_run_again_only_where_they_are_needed() -> None:
    cells = [
        (Step("given", "setup", "import torch"), 5.0),
        (Step("own", "", "base = 2"), 0.0),
        (Step("own", "", "table = [base] * size"), 9.0),
        (Step("own", "", "size = 10"), 9.0),
        (Step("own", "", "curve = sweep()"), 9.0),
        (Step("answer", "part2", "def other(): return curve"), 9.0),
        (Step("answer", "part1", "def mine(): return table"), 9.0),
    ]
    chosen = [step.source.split()[0] for step in again(cells, "part1")]
    assert chosen == ["base", "table", "size", "def"]
