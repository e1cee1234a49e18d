"""Run a set's checks on a student's functions, in a process that never ran student code.

The checks, hidden tests included, call stand-ins (``Remote``). A stand-in sends the arguments to
the sandbox and returns the plain value that comes back; models go as names and are built on both
sides. What is compared, and with what, never enters the sandbox. Where an answer is to be written
out, it has to pass in a sandbox without the book's own function (``alone``).
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType

import torch

from assignments import checks
from assignments.tools import alone
from assignments.tools.frame import Frame, Part, only_defines
from assignments.tools.matching import Plan, Step
from assignments.tools.nursery import Nursery
from assignments.tools.remote import Remote, Result, error_of
from assignments.tools.session import Lost

MAX_RESTARTS = 5
OVERDRAFT = 10  # seconds for own cells that only define, after their time has been used up
NOT_ANSWERED = "no answer"


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
        self.done: list[tuple[Step, float]] = []  # cells that did no harm, with their seconds
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
            raise error_of(*error[:2])
        return reply

    def _cell(self, step: Step) -> None:
        """Run a cell of the student or of the set in the sandbox."""
        own = step.kind == "own"
        left = self.own_left if own else self.cell_seconds
        # An answer may need what a cell behind a long one defines.
        due = OVERDRAFT if own and only_defines(step.source) else 0
        if own and left + due <= 0:
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
            self.done.append((step, session.spent))
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
        for number, (step, seconds) in enumerate(done):
            try:
                kind = "given" if step.kind == "given" else "cell"
                self.session.ask(kind, self.cell_seconds, source=step.source)
                self.done.append((step, seconds))
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
        self.check_left = self.cell_seconds
        # What students see of the check comes first. Then, if they are to do without a function of
        # the book, the whole check in a sandbox that never had it.
        try:
            here = self.stand_ins(part, space)
            fault = self.half(part, "visible", here)
            if fault is None and part.forbidden:
                if decided := alone.check(self, part, space):
                    return decided
            fault = fault or self.half(part, "hidden", here)
        except Lost as error:
            self._restart()
            return Result(name, False, str(error))
        if fault is None and part.forbidden:
            return Result(name, None, alone.BY_HAND)
        return fault or self.passed(part, here)

    def passed(self, part: Part, here: dict) -> Result:
        """The result of a check that ran to its end with these variables."""
        return Result(part.id, True, reference=str(here.get("REFERENCE", "")))

    def stand_ins(self, part: Part, space: dict) -> dict:
        """The variables of a check: the student's functions are called in the sandbox."""
        torch.manual_seed(0)
        return space | {wanted: Remote(self, wanted) for wanted in part.names}

    def half(self, part: Part, stage: str, here: dict) -> Result | None:
        """Run the visible or the hidden half of a check; the result if it fails.

        Raises:
            Lost: the sandbox is gone.
        """
        try:
            self._run(getattr(part, stage), here)
        except Lost:
            raise
        except Exception as error:
            return Result(part.id, False, self._reason(error, stage, part.forbidden)[:500])
        return None

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
