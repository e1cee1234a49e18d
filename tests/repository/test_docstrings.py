"""The examples in the docstrings of ``helpers``, which the reference shows, give what they say."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import helpers

pytestmark = pytest.mark.unit

MODULES = [module.name for module in pkgutil.walk_packages(helpers.__path__, "helpers.")]


def examples(module: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder().find(import_module(module))
    return [test for test in found if test.examples]


@pytest.mark.parametrize("module", MODULES)
def test_an_example_gives_what_it_says(module: str) -> None:
    for test in examples(module):
        output: list[str] = []
        outcome = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(test, out=output.append)
        assert outcome.attempted and not outcome.failed, "".join(output)


def test_readers_of_the_reference_find_examples() -> None:
    """Otherwise the test above could not fail."""
    assert sum(len(examples(module)) for module in MODULES) >= 10
