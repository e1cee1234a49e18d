"""Find what was handed in: whose it is, and which set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 20_000_000


@dataclass(frozen=True)
class Submission:
    """One file of one student, read into memory: code that runs later cannot change it."""

    student: str
    set: str
    text: str


def find(folder: Path, sets: Sequence[str]) -> tuple[list[Submission], list[str]]:
    """Every submission in a folder, by set and student, and notes on what was left out.

    ``ada/ps1.ipynb``, ``ada/ps1/ps1.ipynb``, ``ada-ps1.ipynb`` and ``ps1/ada.ipynb`` are all found.
    Of several files of one student for one set the newest counts. Links are not followed.
    """
    longest_first = sorted(sets, key=len, reverse=True)
    set_name = re.compile(rf"({'|'.join(map(re.escape, longest_first))})(?![0-9])", re.IGNORECASE)
    found: dict[tuple[str, str], Submission] = {}
    notes = []
    # Oldest first, so that a newer file replaces an older one.
    for path in sorted(folder.rglob("*.ipynb"), key=lambda path: (path.lstat().st_mtime, path)):
        place = path.relative_to(folder)
        parts = place.with_suffix("").parts
        if any(part.startswith(".") for part in parts):
            continue  # .ipynb_checkpoints
        folders = [folder / parent for parent in place.parents[:-1]]
        if path.is_symlink() or any(parent.is_symlink() for parent in folders):
            notes.append(f"{place}: a link, left out")
            continue
        if path.stat().st_size > MAX_BYTES:
            notes.append(f"{place}: larger than {MAX_BYTES // 10**6} MB, left out")
            continue
        # The set is named by the file or, failing that, by the nearest folder that names one.
        names = [match[1].lower() for part in reversed(parts) if (match := set_name.search(part))]
        if not names:
            notes.append(f"{place}: no set in its name, left out; call it {sets[0]}.ipynb")
            continue
        # The student is what is left of the path without the set.
        people = [set_name.sub("", part).strip(" -_.()") for part in parts]
        people = [re.sub(r"[^\w.@-]", "_", person) for person in people if person] or ["unnamed"]
        if (names[0], people[0]) in found:
            notes.append(f"{people[0]} handed in {names[0]} more than once; the newest counts")
        text = path.read_bytes().decode("utf-8", "replace")
        found[names[0], people[0]] = Submission(people[0], names[0], text)
    return [found[key] for key in sorted(found)], notes
