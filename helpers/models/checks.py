"""Checks of arguments: a bad one is refused in a sentence that names it, before any long work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from inspect import Parameter, signature
from math import isfinite
from operator import index
from types import UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from jaxtyping import jaxtyped
from torch import Tensor

INFINITE = float("inf")
P, T = ParamSpec("P"), TypeVar("T")


def whole(name: str, value: Any, least: int = 1, below: float = INFINITE) -> int:
    """The whole number that an argument must be.

    Raises:
        TypeError: a float, a boolean or no number.
        ValueError: less than ``least``, or not below ``below``.
    """
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} = {value!r} must be a whole number.")
    if not least <= number < below:
        limits = f"at least {least}" if below == INFINITE else f"{least} to {below - 1}"
        raise ValueError(f"{name} = {number} must be {limits}.")
    return number


def real(name: str, value: Any, low: float = -INFINITE, high: float = INFINITE) -> float:
    """The finite number, from ``low`` to ``high``, that an argument must be.

    Raises:
        TypeError: a boolean or no number.
        ValueError: not finite, or out of these limits.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} = {value!r} must be a number.")
    if isinstance(value, Tensor) and value.numel() != 1:
        raise TypeError(f"{name} = {value} must be one number.")
    number = float(value.detach() if isinstance(value, Tensor) else value)
    if not isfinite(number) or not low <= number <= high:
        limits = "finite" if (low, high) == (-INFINITE, INFINITE) else f"from {low} to {high}"
        raise ValueError(f"{name} = {value} must be {limits}.")
    return number


def rows(given: Any, n: int, name: str = "row") -> Tensor:
    """Indices of some of n things, negative ones counted from the end; all if None is given.

    Raises:
        TypeError: anything but whole numbers.
        ValueError: no index, or one that is not there.
    """
    if given is None:
        return torch.arange(n)
    if not isinstance(given, Tensor):
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            raise TypeError(f"{name}s must be a list of whole numbers, not {given!r}.")
        given = torch.tensor([whole(name, row, -n, n) for row in given], dtype=torch.long)
    if given.is_floating_point() or given.dtype == torch.bool:
        raise TypeError(f"{name}s must be whole numbers, not {given.dtype}.")
    if given.ndim != 1 or not len(given) or not -n <= given.min() <= given.max() < n:
        raise ValueError(f"{name}s must be some of 0 to {n - 1}, not {given.tolist()}.")
    return given % n


def texts(name: str, values: Any) -> Sequence[str]:
    """A list of strings, not empty.

    Raises:
        TypeError: anything else.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise TypeError(f"{name} must be a non-empty list of strings, not {values!r}.")
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise TypeError(f"{name} must be strings, and {wrong[0]!r} is none.")
    return values


def vectors(
    name: str,
    value: Any,
    width: int | None = None,
    axes: int | None = None,
    like: Tensor | None = None,
) -> Tensor:
    """Vectors of finite floating-point numbers.

    Args:
        width: their number of entries; any if not given.
        axes: of the whole tensor; any from 1 on if not given.
        like: what they are multiplied with, of the same precision.

    Raises:
        TypeError: no tensor of floating-point numbers.
        ValueError: another shape, no vector, or numbers that are not finite.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a tensor of floating-point numbers, not {kind}.")
    if like is not None and value.dtype != like.dtype:
        raise TypeError(f"{name} is of {value.dtype} and the weights of {like.dtype}: use .to().")
    shape = tuple(value.shape)
    if not value.numel() or not shape or shape[-1] != (width or shape[-1]):
        raise ValueError(f"{name} has shape {shape}; its last axis must be {width or 'vectors'}.")
    if axes is not None and len(shape) != axes:
        raise ValueError(f"{name} has shape {shape}; it must have {axes} axes.")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} has numbers that are not finite.")
    return value


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Check the arguments of a function, or of a dataclass, by their annotations when it is called.

    Axes of one name must have one length, as in jaxtyping. Tensors may not be empty, and those of
    floating-point numbers must be finite, but for calls through which a gradient is taken: there
    the caller sees what comes out, and a GPU is not waited for.

    Raises:
        TypeError, ValueError: when called, an argument that is not what its annotation says.
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)
        return function
    takes, several = signature(function), (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    single = {name for name, one in takes.parameters.items() if one.kind not in several}
    hints = cache(lambda: get_type_hints(function))  # later, when its module is complete

    @wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> T:
        bound = takes.bind(*given, **named).arguments
        tensors = [value for value in bound.values() if isinstance(value, Tensor)]
        learns = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
        with jaxtyped("context"):
            for name, value in bound.items():
                if name in single and name in hints():
                    _check(name, value, hints()[name], finite=not learns)
        return function(*given, **named)

    return call


def _check(name: str, value: Any, kind: Any, finite: bool) -> None:
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    of_number = whole if int in kinds else real if float in kinds else None
    if any(_is(value, one) for one in kinds if one not in (int, float)):
        if not isinstance(value, Tensor) or Tensor in kinds:
            return
        if not value.numel():
            raise ValueError(f"{name} is empty: its shape is {tuple(value.shape)}.")
        if finite and value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{name} has numbers that are not finite.")
    elif of_number and not (isinstance(value, Tensor) and value.ndim):
        of_number(name, value, 0 if name == "seed" else -INFINITE)
    else:
        words = " or ".join(getattr(one, "__name__", str(one)) for one in kinds)
        if not isinstance(value, Tensor) or "Tensor" not in words:
            raise TypeError(f"{name} must be {words}, not {value!r:.60}.")
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} and {value.dtype}; it must be {words}, with "
            "axes of one name as long as those of the other arguments."
        )


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind; of a list or pair what it holds, too, but for numbers."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is None:
        if kind in (int, float, Any):
            return True
        kind = (bool, np.bool_) if kind is bool else kind
        return isinstance(value, kind) and not isinstance(value, type)
    if origin not in (Sequence, list, tuple):
        return isinstance(value, origin)
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__"):
        return False
    if origin is tuple and ... not in inside:
        return len(value) == len(inside) and all(map(_is, value, inside))
    return all(_is(one, inside[0]) for one in value)
