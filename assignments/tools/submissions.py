"""Find what was handed in: which file is which student's, and for which set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LARGEST = 20_000_000  # bytes


@dataclass(frozen=True)
class Submission:
    """One file of one student, read into memory, so that nothing that runs later can change it."""

    student: str
    set: str
    path: Path
    text: str


def find(folder: Path, sets: Sequence[str]) -> tuple[list[Submission], list[str]]:
    """Every submission under a folder: ``ada/ps1.ipynb``, ``ada/ps1/ps1.ipynb``, ``ada-ps1.ipynb`` or ``ps1/ada.ipynb``.

    Of several files of one student for one set the newest counts. Links are not followed.

    Returns:
        The submissions, by set and student, and what was left out and why.
    """
    name = re.compile(
        "(" + "|".join(map(re.escape, sorted(sets, key=len, reverse=True))) + r")(?![0-9])",
        re.IGNORECASE,
    )
    found: dict[tuple[str, str], Submission] = {}
    notes = []
    for path in sorted(
        folder.rglob("*.ipynb"), key=lambda path: (path.lstat().st_mtime, path.as_posix())
    ):
        parts = path.relative_to(folder).with_suffix("").parts
        if any(part.startswith(".") for part in parts):
            continue  # checkpoints
        if path.is_symlink() or any(
            parent.is_symlink()
            for parent in path.parents
            if parent.is_relative_to(folder) and parent != folder
        ):
            notes.append(f"{path.relative_to(folder)}: a link, left out")
            continue
        if path.stat().st_size > LARGEST:
            notes.append(f"{path.relative_to(folder)}: larger than {LARGEST // 10**6} MB, left out")
            continue
        which = next(
            (match[1].lower() for part in reversed(parts) if (match := name.search(part))), None
        )
        if which is None:
            notes.append(
                f"{path.relative_to(folder)}: not clear which set it is; call it {sets[0]}.ipynb"
            )
            continue
        people = [word for part in parts if (word := name.sub("", part).strip(" -_.()"))]
        student = re.sub(r"[^\w.@-]", "_", people[0]) if people else "unnamed"
        if (which, student) in found:
            notes.append(f"{student} handed in {which} more than once; the newest counts")
        found[which, student] = Submission(
            student, which, path, path.read_bytes().decode("utf-8", "replace")
        )
    return [found[key] for key in sorted(found)], notes
