"""Comparisons of what an answer returns, and inputs that try it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

import torch
from torch import Tensor


class Wrong(AssertionError):
    """A wrong value; ``brief`` says what is wrong without details of this case."""

    def __init__(self, message: str, brief: str = "") -> None:
        super().__init__(message)
        self.brief = brief or message


def shaped(value: object, shape: Sequence[int], what: str) -> Tensor:
    """``value`` as a plain tensor; fail unless it has this shape and finite entries."""
    if not isinstance(value, Tensor):
        brief = f"{what}: expected a torch.Tensor"
        raise Wrong(f"{brief}, got {type(value).__name__}", brief)
    if tuple(value.shape) != tuple(shape):
        got, expected = tuple(value.shape), tuple(shape)
        raise Wrong(f"{what}: shape {got}, expected {expected}", f"{what}: wrong shape")
    if value.is_floating_point() and not value.isfinite().all():
        raise Wrong(f"{what}: some values are not finite")
    return value.detach().as_subclass(Tensor)


def near(value: object, expected: object, message: str, tolerance: float = 1e-4) -> None:
    """Fail with ``message`` unless value = expected within tolerance · max(1, max |expected|)."""
    expected = torch.as_tensor(expected).detach().double()
    try:
        value = torch.as_tensor(value).detach().double()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{message} (no number: {type(value).__name__})", message) from None
    if value.shape != expected.shape:
        shapes = f"(shape {tuple(value.shape)}, expected {tuple(expected.shape)})"
        raise Wrong(f"{message} {shapes}", message)
    worst = float((value - expected).abs().max()) if value.numel() else 0.0
    size = max(1.0, float(expected.abs().max())) if value.numel() else 1.0
    if not worst <= tolerance * size:
        raise Wrong(f"{message} (largest difference {worst:.3g})", message)


@contextmanager
def must_keep(value: list, message: str) -> Iterator[None]:
    """Fail with ``message`` if the block changes a list in place."""
    before = list(value)
    yield
    if value != before:
        raise Wrong(message)


@contextmanager
def must_raise(kind: type[Exception], message: str) -> Iterator[None]:
    """Fail with ``message`` unless the block raises an exception of this kind."""
    try:
        yield
    except kind:
        return
    raise Wrong(message)


def variant(student: str, **choices: Sequence) -> dict[str, object]:
    """One of each of the choices, drawn from a student's id: everybody has a case of their own."""
    drawn = {}
    for name, options in choices.items():
        digest = sha256(f"{student.strip().casefold()} {name}".encode()).digest()
        drawn[name] = options[int.from_bytes(digest[:8], "big") % len(options)]
    return drawn


class Salted(str):
    """A text whose place in a set depends on ``salt``, as that of any text does on the process."""

    __module__ = "checks"  # as notebooks import it: so the sandbox, which has no other, finds it

    def __new__(cls, text: str, salt: int) -> Salted:
        made = super().__new__(cls, text)
        made.salt = salt
        return made

    def __hash__(self) -> int:
        return hash((str(self), self.salt))

    def __eq__(self, other: object) -> bool:
        return str(self) == other

    def __reduce__(self) -> tuple:
        return Salted, (str(self), self.salt)
