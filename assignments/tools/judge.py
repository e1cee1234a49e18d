"""Run a set's checks on a student's functions, in a process that never ran student code.

The checks, hidden tests included, call stand-ins (``Remote``). A stand-in sends the arguments to
the sandbox and returns the plain value that comes back; models go as names and are built on both
sides. What is compared, and with what, never enters the sandbox.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType

import torch

from assignments import checks
from assignments.inside import wire
from assignments.tools.frame import Frame, Part
from assignments.tools.matching import Plan, Step
from assignments.tools.nursery import Nursery
from assignments.tools.session import Lost

MAX_RESTARTS = 5
NOT_ANSWERED = "no answer"


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

    def __init__(self, court: Court, name: str, part: Part, forbidden: list[str]) -> None:
        self.__name__, self.court, self.part, self.forbidden = name, court, part, forbidden

    def __call__(self, *args: object, **kwargs: object) -> object:
        request = {"name": self.__name__, "args": args, "kwargs": kwargs}
        reply = self.court.ask("call", forbidden=self.forbidden, **request)
        self.court.changed |= bool(reply.get("changed"))
        return wire.decode(reply.get("value"))

    def written_out(self, names: tuple[str, ...]) -> None:
        """As ``checks.own_work``, of the function in the sandbox."""
        self.court.ask("written_out", name=self.__name__, forbidden=names)


def _error(kind: str, text: str) -> Exception:
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


@dataclass
class Court:
    """Grades submissions of one set.

    Attributes:
        factor: of the set's time limits.
        notes: on the current submission.
    """

    frame: Frame
    nursery: Nursery
    factor: float = 1.0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changed = False
        # The module that the checks import: as handed out, but for functions in the sandbox.
        module = ModuleType("checks")
        vars(module).update(vars(checks))
        module.own_work = lambda function, *names: function.written_out(names)
        module.must_keep = self._must_keep
        sys.modules["checks"] = module
        self.space = {"__name__": "__main__"}
        for cell in self.frame.cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") == "setup":
                self._run(cell.source, self.space)

    @contextlib.contextmanager
    def _must_keep(self, value: object, message: str) -> Iterator[None]:
        """As ``checks.must_keep``; what happens to a value in the sandbox changes nothing here."""
        self.changed = False
        yield
        if self.changed:
            raise checks.Wrong(message)

    def _run(self, source: str, space: dict) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, "check", "exec"), space)

    def grade(self, plan: Plan, student: str = "") -> list[Result]:
        """The result of every part that is code.

        Args:
            student: whose id draws the case of an open part.

        Raises:
            SandboxError: no sandbox can be started.
        """
        limits = self.frame.limits
        # Time accounts: of the student's own cells, of one cell, of the whole set.
        self.own_left = self.factor * limits.get("own_seconds", 120)
        self.cell_seconds = self.factor * limits["cell_seconds"]
        self.left = self.factor * limits["total_seconds"]
        self.notes, self.restarts = [], 0
        self.done: list[Step] = []
        space, results = self.space | {"STUDENT": student}, {}
        self.session = self.nursery.session()
        # A check that fails runs again at the end, in case a later cell mends the answer.
        try:
            for step in plan.steps:
                if step.kind == "check":
                    results[step.label] = self._check(plan, step.label, space)
                else:
                    self._cell(step)
                    if step.kind == "given":
                        self._run(step.source, space)
            for part, result in list(results.items()):
                if result.passed is False and not self._hopeless(result):
                    again = self._check(plan, part, space)
                    if again.passed:
                        self.notes.append(f"{part} passed when all cells had been run")
                        results[part] = again
        finally:
            self.session.end()
        return list(results.values())

    def _hopeless(self, result: Result) -> bool:
        return result.reason.startswith((NOT_ANSWERED, "took", "ended", "used"))

    def ask(self, do: str, **request: object) -> dict:
        """Have something done in the sandbox, on the time account of the current check.

        Raises:
            Lost: the sandbox is gone.
            Exception: what the student's code raised.
        """
        try:
            reply = self.session.ask(do, max(0.5, min(self.check_left, self.left)), **request)
        finally:
            self.check_left -= self.session.spent
            self.left -= self.session.spent
        if error := reply.get("error"):
            raise _error(*error[:2])
        return reply

    def _cell(self, step: Step) -> None:
        """Run a cell of the student or of the set in the sandbox."""
        own = step.kind == "own"
        left = self.own_left if own else self.cell_seconds
        if own and left <= 0:
            note = f"{step.label}: not run, your own cells had used up their time"
            self.notes.append(note)
            return
        session = self.session
        kind = "given" if step.kind == "given" else "cell"
        # After an error the next cell runs all the same; a cell that ends the sandbox is left out.
        try:
            reply = session.ask(kind, max(1, left), source=step.source)
        except Lost as error:
            self.notes.append(f"{step.label}: this cell {error}")
            self._restart()
        else:
            self.done.append(step)
            error = reply.get("error")
            if error and step.kind not in ("shown", "alias"):
                said = f"{error[0]}: {error[1]}" if error[0] != "TimeoutError" else error[1]
                self.notes.append(f"{step.label}: {said[:200]}")
        if own:
            self.own_left -= session.spent

    def _restart(self) -> None:
        """A fresh sandbox, in which the cells that did no harm run again."""
        self.restarts += 1
        self.session.end()
        self.session = self.nursery.session()
        if self.restarts > MAX_RESTARTS:
            return
        done, self.done = self.done, []
        for number, step in enumerate(done):
            try:
                kind = "given" if step.kind == "given" else "cell"
                self.session.ask(kind, self.cell_seconds, source=step.source)
                self.done.append(step)
            except Lost:
                self.done += done[number + 1 :]
                return self._restart()

    def _check(self, plan: Plan, name: str, space: dict) -> Result:
        """Run one check, first the half that students see, then the hidden one."""
        part, answer = self.frame.parts[name], plan.answers[name]
        if answer.by_hand:
            return Result(name, None, answer.by_hand)
        if not answer.text:
            return Result(name, False, f"{NOT_ANSWERED} was found")
        if self.restarts > MAX_RESTARTS or self.left <= 0:
            return Result(name, None, "not run: earlier parts used up the time of the whole set")
        # The student's functions are called in the sandbox; everything else of a check runs here.
        found = re.findall(r"own_work\(\w+, (.+)\)", part.visible)
        forbidden = re.findall(r'"(\w+)"', " ".join(found))
        self.check_left, here = self.cell_seconds, dict(space)
        here |= {wanted: Remote(self, wanted, part, forbidden) for wanted in part.names}
        torch.manual_seed(0)
        for stage, source in (("visible", part.visible), ("hidden", part.hidden)):
            try:
                self._run(source, here)
            except Lost as error:
                self._restart()
                return Result(name, False, str(error))
            except Exception as error:
                return Result(name, False, self._reason(error, stage, forbidden)[:500])
        return Result(name, True, reference=str(here.get("REFERENCE", "")))

    def _reason(self, error: Exception, stage: str, forbidden: list[str]) -> str:
        """Why a check failed, in words that may be shown."""
        kind, text = type(error).__name__, str(error)
        if isinstance(error, NotImplementedError):
            return f"{NOT_ANSWERED}: NotImplementedError"
        if re.fullmatch(r"took more than \d+ seconds and was interrupted", text):
            return text
        if stage == "visible":
            says = text and isinstance(error, AssertionError)
            return text if says else f"{kind}: {text}".removesuffix(": ")
        if isinstance(error, AssertionError) and not hasattr(error, "of_student"):
            return getattr(error, "brief", text)
        # From here on the text may be the student's, and repeat what a hidden test gave.
        told = [checks.HOOK_LEFT, checks.WEIGHTS_CHANGED]
        told += [f"calls the book's own {name}" for name in forbidden]
        for known in told:
            if known in text:
                return known
        return f"{kind} in a test with other inputs"
