"""What is known of a submission, what it comes to, and files that are replaced in one step."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path


class SandboxError(RuntimeError):
    """No sandbox can be started here, and nothing is graded; the message says why."""


@dataclass
class Record:
    """One submission.

    Attributes:
        digest: of the file and of everything that grades it.
        passed: by part of code; None where a person decides.
        reasons: by part, for the student.
        answers: by part.
        notes: for the student and the teacher.
        suspicious: for the teacher alone.
        references: by part, what the student's own case gives, for the teacher alone.
        sandbox: what held the student's code, in words.
    """

    set: str
    student: str
    file: str = ""
    digest: str = ""
    passed: dict[str, bool | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    answers: dict[str, dict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    suspicious: list[str] = field(default_factory=list)
    references: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    sandbox: str = ""


@dataclass
class Row:
    """A student's standing in one set.

    Attributes:
        parts: points by part; None where an answer waits to be marked.
        comments: of the teacher, by part.
    """

    record: Record
    total: float
    parts: dict[str, float | None]
    comments: dict[str, str]

    @property
    def points(self) -> float:
        return sum(points or 0 for points in self.parts.values())

    @property
    def to_mark(self) -> int:
        return sum(points is None for points in self.parts.values())


def slug(name: str) -> str:
    """A file name for a student: readable, and another one for every other student."""
    plain = re.sub(r"[^\w.-]", "_", name)[:60].strip(".")
    if plain == name and name == name.lower() and name.isascii():
        return name
    return f"{plain.lower()}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def digest_of(answer: dict) -> str:
    """A short name of what was answered, by which a later change is noticed."""
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()[:8]


def write(path: Path, text: str) -> None:
    """Replace a file in one step: whoever reads it sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="")
    os.replace(part, path)
