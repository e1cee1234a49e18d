"""The examples in the docstrings of ``helpers``, which the book's reference shows: they say what happens."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

MODULES = sorted(path.stem for path in (Path(__file__).parents[2] / "helpers").glob("[!_]*.py"))


def examples(module: str) -> list[doctest.DocTest]:
    return [
        test
        for test in doctest.DocTestFinder().find(import_module(f"helpers.{module}"))
        if test.examples
    ]


@pytest.mark.parametrize("module", MODULES)
def test_an_example_gives_what_it_says(module: str) -> None:
    for test in examples(module):
        said: list[str] = []
        outcome = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(test, out=said.append)
        assert outcome.attempted and not outcome.failed, "".join(said)


def test_readers_of_the_reference_find_examples() -> None:
    """Else the test above could not fail."""
    assert sum(len(examples(module)) for module in MODULES) >= 10
