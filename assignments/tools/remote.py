"""A student's functions as the checks see them, and what a check comes to."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assignments.inside import wire

if TYPE_CHECKING:
    from assignments.tools.judge import Court


@dataclass
class Result:
    """What became of one part.

    Attributes:
        passed: None if a person has to decide.
        reason: for the student; says nothing of hidden tests but what their messages say.
        reference: for the teacher: what the check says of this student's own case.
    """

    part: str
    passed: bool | None
    reason: str = ""
    reference: str = ""


class Remote:
    """A student's function, as the checks see it."""

    def __init__(self, court: Court, name: str) -> None:
        self.__name__, self.court = name, court

    def __call__(self, *args: object, **kwargs: object) -> object:
        reply = self.court.ask("call", name=self.__name__, args=args, kwargs=kwargs)
        self.court.changed |= bool(reply.get("changed"))
        return wire.decode(reply.get("value"))

    def written_out(self, names: tuple[str, ...]) -> None:
        """As ``checks.own_work``, of the function in the sandbox."""
        self.court.ask("written_out", name=self.__name__, forbidden=names)


def error_of(kind: str, text: str) -> Exception:
    """A student's exception, as one of Python's own."""
    found = getattr(builtins, str(kind), RuntimeError)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        found, text = RuntimeError, f"{kind} {text}".strip()
    try:
        error = found(str(text))
    except TypeError:  # it wants more arguments
        error = RuntimeError(str(text))
    error.of_student = True
    return error
