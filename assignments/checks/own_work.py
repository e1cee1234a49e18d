"""Whether an answer is written out, or calls the book's own function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from .values import Wrong


def own_work(function: Callable, *names: str) -> None:
    """Fail if a function, or one that it calls, uses the book's helpers of these names.

    It looks through decorators, partial functions, methods, closures and containers. A function of
    your own may have the name of a helper.
    """
    waiting, seen = [function], {}
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one  # kept, so that its id stays its own
        code = getattr(one, "__code__", None)
        if isinstance(code, CodeType) and code.co_name in names and _from_book(code.co_filename):
            raise Wrong(_called(function, code.co_name))  # under another name too
        if str(getattr(one, "__module__", "")).startswith("helpers."):
            if getattr(one, "__name__", "") in names:
                raise Wrong(_called(function, one.__name__))
        elif isinstance(one, FunctionType):
            if "site-packages" in one.__code__.co_filename:  # a library's, which calls no helper
                continue
            reached, used = _reached(one), _names(one.__code__)
            waiting += reached
            for module in reached:
                if isinstance(module, ModuleType) and _from_book(str(vars(module).get("__file__"))):
                    waiting += [getattr(module, name, None) for name in used]
            if any(name.startswith("helpers.") for name in used):  # imported inside
                for name in used & set(names):
                    raise Wrong(_called(function, name))
        elif isinstance(one, (dict, list, tuple, set, frozenset)):  # put away in a container
            waiting += list(one.values() if isinstance(one, dict) else one)[:1000]
        else:  # a decorated or partial function, a bound method, an object that can be called
            parts = [getattr(one, name, None) for name in ("__wrapped__", "func", "__func__")]
            parts += [vars(type(one)).get("__call__")]
            parts += one.args if isinstance(one, partial) else ()
            waiting += [part for part in parts if isinstance(part, (FunctionType, partial))]
            if type(one).__module__ == "__main__":  # an object of the student's own
                waiting += list(getattr(one, "__dict__", {}).values())


def _from_book(file: str) -> bool:
    return "helpers" in Path(file).parts


def _called(function: Callable, name: str) -> str:
    mine = getattr(function, "__name__", "the function")
    return f"{mine} is to be written out, and it calls the book's own {name}"


def _reached(function: FunctionType) -> list:
    """What a function can reach: globals that it names, variables of its closure, defaults."""
    space = function.__globals__
    found = [space[name] for name in _names(function.__code__) if name in space]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    return [*found, *(function.__defaults__ or ()), getattr(function, "__wrapped__", None)]


def _names(code: CodeType) -> set[str]:
    """Every name that code uses, inner functions included."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names
