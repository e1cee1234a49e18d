"""Checks of arguments: a bad one is refused in a sentence that names it, before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from operator import index
from typing import Any

import torch
from torch import Tensor

INFINITE = float("inf")


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
    if not isfinite(value) or not low <= value <= high:
        limits = "finite" if (low, high) == (-INFINITE, INFINITE) else f"from {low} to {high}"
        raise ValueError(f"{name} = {value} must be {limits}.")
    return float(value)


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


def vectors(name: str, value: Any, width: int | None = None, axes: int | None = None) -> Tensor:
    """Vectors of finite floating-point numbers.

    Args:
        width: their number of entries; any if not given.
        axes: of the whole tensor; any from 1 on if not given.

    Raises:
        TypeError: no tensor of floating-point numbers.
        ValueError: another shape, no vector, or numbers that are not finite.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a tensor of floating-point numbers, not {kind}.")
    shape = tuple(value.shape)
    if not value.numel() or not shape or shape[-1] != (width or shape[-1]):
        raise ValueError(f"{name} has shape {shape}; its last axis must be {width or 'vectors'}.")
    if axes is not None and len(shape) != axes:
        raise ValueError(f"{name} has shape {shape}; it must have {axes} axes.")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} has numbers that are not finite.")
    return value
