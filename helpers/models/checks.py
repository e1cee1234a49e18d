"""Checks of arguments: a bad one is refused in a sentence that names it, before any long work."""

from __future__ import annotations

from operator import index
from typing import Any

import torch
from torch import Tensor


def whole(name: str, value: Any, least: int = 1, below: float = float("inf")) -> int:
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
        limits = f"at least {least}" if below == float("inf") else f"{least} to {below - 1}"
        raise ValueError(f"{name} = {number} must be {limits}.")
    return number


def rows(given: Any, n: int) -> Tensor:
    """Indices of some of n prompts; all of them if None is given.

    Raises:
        TypeError: numbers that are not whole, or a mask.
        ValueError: no index, or one that is not there.
    """
    found = torch.arange(n) if given is None else torch.as_tensor(given)
    if found.is_floating_point() or found.dtype == torch.bool:
        raise TypeError(f"rows must be whole numbers, not {found.dtype}: {given!r}.")
    if found.ndim != 1 or not len(found) or not -n <= found.min() <= found.max() < n:
        raise ValueError(f"rows must be some of 0 to {n - 1}, not {found.tolist()}.")
    return found % n


def vectors(name: str, value: Any, width: int) -> Tensor:
    """Floating-point vectors of a width, with any axes in front.

    Raises:
        TypeError: no tensor of floating-point numbers.
        ValueError: another width, no vector, or numbers that are not finite.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must be a tensor of floating-point numbers, not {_kind(value)}.")
    if not value.numel() or value.shape[-1] != width:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; its last axis must be {width}.")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} has numbers that are not finite.")
    return value


def _kind(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else repr(value)
