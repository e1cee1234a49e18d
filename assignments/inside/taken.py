"""Take functions of the book out of a process, before student code runs there.

What is not in a process cannot be found by any code that runs in it, whatever it does to the
server, to other modules or to itself, and in no process that it starts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cached_property
from types import FunctionType


def take_away(names: list[str]) -> None:
    """Replace the code of the book's functions, classes and methods of these names, for good.

    They raise an AssertionError instead, which names them. The old code is freed: nothing refers to
    it any more, and the files that it came from are not in the sandbox.
    """
    modules = [module for name, module in sys.modules.items() if name.startswith("helpers.")]
    for name in names:
        found = [vars(module)[name] for module in modules if name in vars(module)]
        if not found:  # a method, of any class
            for module in modules:
                classes = [one for one in vars(module).values() if isinstance(one, type)]
                found += [vars(one)[name] for one in classes if name in vars(one)]
        for one in found:
            for function in _functions(one):
                _empty(function, name)


def _functions(one: object) -> Iterator[FunctionType]:
    """A function and what it wraps; of a class, all that it and its classes in the book define."""
    if isinstance(one, type):
        for kind in one.__mro__:
            if kind.__module__.startswith("helpers."):
                for part in vars(kind).values():
                    if not isinstance(part, type):
                        yield from _functions(part)
    while one is not None and not isinstance(one, type):
        if isinstance(one, FunctionType):
            yield one
        if isinstance(one, property):
            one = one.fget
        elif isinstance(one, cached_property):
            one = one.func
        else:  # decorated; a static method or a class method
            one = getattr(one, "__wrapped__", None) or getattr(one, "__func__", None)


def _empty(function: FunctionType, name: str) -> None:
    space = {}
    text = f"the answer is to be written out, and it calls the book's own {name}"
    exec(f"def stop(*arguments, **options): raise AssertionError({text!r})", space)
    free = function.__code__.co_freevars  # Python wants as many as before
    function.__code__ = space["stop"].__code__.replace(co_freevars=free)
