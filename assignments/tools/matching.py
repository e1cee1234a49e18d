"""Find a student's answers among the cells that were handed in, as a fair person would.

The set is the frame: its own cells run in their original form and order. A student's cells keep
their place after the cell of the frame that they followed, and an answer goes to its part by
nbgrader's mark, by the notebook's cell id or by the name that it defines, in this order of trust.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from assignments.tools.frame import Frame, Part, bound, parse
from assignments.tools.reading import Cell
from assignments.tools.repair import is_stub, mended
from assignments.tools.sources import marks, shown

EMPTY = re.compile(r"YOUR (CODE|ANSWER) HERE|#|\s")


@dataclass
class Answer:
    """What a student answered to one part, as it is shown to people."""

    text: str = ""
    images: list[str] = field(default_factory=list)
    by_hand: str = ""  # why a person has to look at it

    def __bool__(self) -> bool:
        return bool(self.text or self.images)

    def add(self, cell: Cell) -> None:
        self.text = f"{self.text}\n\n{cell.source.strip()}".strip()
        self.images += cell.images


@dataclass(frozen=True)
class Step:
    """A cell to run ("given", "own", "answer", "shown", "alias") or a part to check ("check")."""

    kind: str
    label: str
    source: str = ""


@dataclass
class Plan:
    """What to run, in order, and what people read."""

    steps: list[Step]
    answers: dict[str, Answer]
    notes: list[str]


def squeezed(text: str) -> str:
    """A text without white space, by which copies are recognised."""
    return re.sub(r"\s", "", text)


def match(cells: list[Cell], frame: Frame) -> Plan:
    """A plan of how to grade a submission."""
    matcher = _Matcher(frame)
    for cell in mended(cells, matcher.notes):
        matcher.place(cell)
    return matcher.plan()


class _Matcher:
    def __init__(self, frame: Frame) -> None:
        self.frame, self.notes, self.here = frame, [], -1
        self.by_text, self.by_mark, self.answer_cells = {}, {}, set()
        self.wanted = {}
        for part in frame.parts.values():
            self.wanted |= dict.fromkeys(part.names, part.id)
        for index, cell in enumerate(frame.cells):
            self.by_text.setdefault(squeezed(shown(cell.source)), index)
            for mark in (marks(cell).get("grade_id"), cell.get("id")):
                if mark:
                    self.by_mark[mark] = index
            if marks(cell).get("solution"):
                self.answer_cells.add(index)
        self.own: dict[int, list[Cell]] = {}
        self.code: dict[str, list[Cell]] = {part: [] for part in frame.parts}
        self.answers = {part: Answer() for part in frame.parts}
        self.loose: list[Cell] = []  # texts that belong to no part, or only perhaps to one

    def place(self, cell: Cell) -> None:
        """Say what one cell is, and put it where it belongs."""
        text = squeezed(cell.source)
        index = self.by_mark.get(cell.grade_id, self.by_mark.get(cell.id))
        if not text:
            return
        if text in self.by_text and self.by_text[text] not in self.answer_cells:
            self.here = self.by_text[text]
            return
        if index in self.answer_cells:
            self.here = index
        names = bound(cell.source)
        if set(names) & set(self.wanted) and is_stub(cell.source):
            return  # as it was handed out
        if not EMPTY.sub("", cell.source):
            return
        if index in self.answer_cells:
            part = self.frame.cells[index].metadata.nbgrader.grade_id
            if self.frame.parts[part].written:
                return self._write(part, cell)
            parts = [self.wanted[name] for name in names if name in self.wanted]
            part = part if part in parts or not parts else parts[0]
            return self.code[part].append(cell)
        for name in names:
            if name in self.wanted:
                if cell.kind != "code":
                    self.notes.append(f"{self.wanted[name]} was in a {cell.kind} cell; it was run")
                elif index is not None:
                    self._changed(index)
                return self.code[self.wanted[name]].append(cell)
        if index is not None:
            return self._frame_cell(index, cell)
        section = self.frame.sections[self.here] if self.here >= 0 else ""
        in_written = section in self.frame.parts and self.frame.parts[section].written
        prose = in_written and self._prose(cell)
        if cell.kind == "code" and (names or not prose):  # a text may have a name
            self.own.setdefault(self.here, []).append(cell)
            written = self.answers.get(section.replace("part", "written"))
            if written:
                written.images += cell.images  # figures of an open part
        if prose or (in_written and cell.kind != "code"):
            self._write(section, cell, own=True)
        elif cell.kind != "code":
            self.loose.append(cell)

    def _prose(self, cell: Cell) -> bool:
        """Whether a code cell holds a text: no Python, or only comments and strings."""
        tree = parse(cell.source)
        if tree is None:
            return True
        values = [getattr(getattr(one, "value", None), "value", None) for one in tree.body]
        return all(isinstance(value, str) for value in values)

    def _write(self, part: str, cell: Cell, own: bool = False) -> None:
        self.answers[part].add(cell)
        if own:
            self.loose.append(cell)
        if own or cell.kind != "markdown":
            self.notes.append(f"{part}: the answer was in a {cell.kind} cell of its own")

    def _changed(self, index: int) -> None:
        name = marks(self.frame.cells[index]).get("grade_id") or "a text of the set"
        self.notes.append(f"{name} was changed; the original counts")

    def _frame_cell(self, index: int, cell: Cell) -> None:
        """A cell of the frame that the student has changed: keep what was added to it."""
        original, self.here = shown(self.frame.cells[index].source), index
        section = self.frame.sections[index]
        if cell.kind == "markdown":
            more = cell.source.strip().removeprefix(original.strip())
            if more != cell.source.strip() and more.strip():
                added = Cell("markdown", more, images=cell.images)
                if section in self.frame.parts and self.frame.parts[section].written:
                    return self._write(section, added, own=True)
                self.loose.append(added)
            return
        self._changed(index)
        if set(bound(cell.source)) - set(bound(original)):
            self.own.setdefault(index - 1, []).append(cell)  # before the original, which wins

    def plan(self) -> Plan:
        """Put the frame and the student's cells together."""
        steps, aliases = [], {}
        for part in self.frame.parts.values():
            if part.written:
                self._settle_written(part)
            else:
                aliases[part.id] = self._settle_code(part)
        last_own = max(self.own, default=-1)
        early = self.own.get(-1, [])
        for index, cell in enumerate(self.frame.cells):
            mark, grade_id = marks(cell), marks(cell).get("grade_id", "")
            part = grade_id.removesuffix("-check")
            if mark.get("grade") and cell.cell_type == "code":
                if last_own >= index:
                    steps.append(Step("shown", grade_id, shown(cell.source)))
                steps.append(Step("check", part))
            elif mark.get("solution") and cell.cell_type == "code":
                steps += [Step("answer", part, one.source) for one in self.code[part]]
                steps += [Step("alias", part, line) for line in aliases[part]]
            elif cell.cell_type == "code" and "look" not in cell.metadata.get("tags", []):
                steps.append(Step("given", grade_id, cell.source))
                if early:
                    steps += [Step("own", "the first cells", one.source) for one in early]
                    early = []
            after = grade_id or "a text"
            for one in self.own.get(index, []):
                steps.append(Step("own", f"a cell of your own after {after}", one.source))
        # Again, for what is defined in the last cells.
        steps += [Step("alias", part, line) for part in aliases for line in aliases[part]]
        return Plan(steps, self.answers, list(dict.fromkeys(self.notes)))

    def _settle_code(self, part: Part) -> list[str]:
        """Lines that give an answer the name that was asked for, if it has another one."""
        answer, cells, lines = self.answers[part.id], self.code[part.id], []
        for cell in cells:
            answer.add(cell)
        if len(cells) > 1:
            self.notes.append(f"{part.id} is there {len(cells)} times; the last definition counts")
        defined = [name for cell in cells for name in bound(cell.source)]
        theirs = [cell for slot, own in self.own.items() for cell in own]
        near_by = [cell for cell in theirs if self._slot_section(cell) == part.id]
        for wanted in part.names:
            if wanted in defined:
                continue
            shared = [cell for other in self.code.values() for cell in other]
            if there := [cell for cell in shared if wanted in bound(cell.source)]:
                answer.add(there[-1])  # in one cell with another answer
                continue
            found = self._other_name(wanted, defined, theirs)
            if found:
                lines.append(f"{wanted} = {found}")
                self.notes.append(f"{part.id}: {wanted} was called {found}; it was taken")
                if not cells:
                    answer.add(next(cell for cell in theirs if found in bound(cell.source)))
                continue
            texts = [cell for cell in self.loose if f"def {wanted}" in cell.source]
            for cell in near_by + texts:
                answer.add(cell)
            if texts or (answer.text and f"def {wanted}" not in answer.text):
                answer.by_hand = f"no function {wanted} was found; a person reads the cells"
        return lines

    def _slot_section(self, cell: Cell) -> str:
        for slot, own in self.own.items():
            if any(one is cell for one in own):
                return self.frame.sections[slot] if slot >= 0 else ""
        return ""

    def _other_name(self, wanted: str, defined: list[str], theirs: list[Cell]) -> str:
        """A function that must be the answer although it has another name."""
        fresh = [name for name in defined if name not in self.wanted]
        if len(fresh) == 1:
            return fresh[0]
        plain = wanted.replace("_", "").lower()
        for name in [*fresh, *(name for cell in theirs for name in bound(cell.source))]:
            other = name.replace("_", "").lower()
            if name not in self.wanted and SequenceMatcher(None, plain, other).ratio() > 0.85:
                return name
        return ""

    def _settle_written(self, part: Part) -> None:
        answer = self.answers[part.id]
        if answer:
            return
        longer = [cell for cell in self.loose if len(cell.source) > 60]
        for cell in longer:
            answer.add(cell)
        if longer:
            answer.by_hand = "no answer in its place; these texts of the student belong to no part"
