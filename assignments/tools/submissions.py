"""Find what was handed in: whose it is, and which set."""

from __future__ import annotations

import io
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile

from assignments.tools.frame import Frame
from assignments.tools.owners import NOTEBOOK, Owners, stem
from assignments.tools.reading import MAX_BYTES, text_of
from assignments.tools.roster import Roster

IGNORED = re.compile(
    r"checks(\.py)?|.*_attempt_[\d-]+\.txt|thumbs\.db|desktop\.ini|timestamp\.txt|__MACOSX"
    r"|__pycache__|.*\.pyc",
    re.IGNORECASE,
)


@dataclass
class Handed:
    """One file of one student; ``set`` is "" if nothing tells which set it is.

    Attributes:
        place: its path below the folder of submissions, as text.
        data: its bytes; None for something that is no file of a student.
        older: what the student handed in for this set before, the newest first.
    """

    student: str
    set: str
    place: str
    data: bytes | None
    when: float = 0.0
    notes: list[str] = field(default_factory=list)
    older: list[Handed] = field(default_factory=list)


@dataclass
class _File:
    """A file; ``packs``: how many parts name each zip file around it, the outermost first."""

    parts: tuple[str, ...]
    data: bytes | None
    when: float
    note: str = ""
    packs: tuple[int, ...] = ()
    set: str = ""


def find(folder: Path, frames: dict[str, Frame], roster: Roster) -> list[Handed]:
    """Every student's file for every set, the newest of several; files that are none of these too.

    Every file below the folder is in the result or named in the notes of one that is, but for
    hidden files and handed-out ones.
    """
    # The newest file counts, so older ones come first.
    longest_first = sorted(frames, key=len, reverse=True)
    names = re.compile(rf"({'|'.join(map(re.escape, longest_first))})(?![0-9])", re.IGNORECASE)
    files = sorted(_files(folder), key=lambda file: (file.when, file.parts))
    for file in files:
        is_notebook = bool(NOTEBOOK.search(file.parts[-1])) and file.data is not None
        file.set = _set_of(file, names, frames if is_notebook else {})
    owners = Owners(files, names, roster)
    found: dict[tuple[str, str], Handed] = {}
    others: list[Handed] = []
    for file in files:
        notebook = bool(NOTEBOOK.search(file.parts[-1])) and file.data is not None
        student, note = owners.of(file)
        late = "the platform says that it was late" if "_LATE_" in file.parts[-1] else ""
        notes = [one for one in (note, file.note, late) if one]
        one = Handed(student, file.set, "/".join(file.parts), file.data, file.when, notes)
        if not notebook or not file.set:
            others.append(one)
            continue
        if older := found.get((student, file.set)):
            one.notes.append(f"handed in more than once; {one.place} counts, not {older.place}")
            one.older = [older, *older.older]
        found[student, file.set] = one
    for one in others:
        theirs = [key for key in found if key[0] == one.student and one.set in ("", key[1])]
        if theirs and not one.notes:
            found[theirs[0]].notes.append(f"also handed in, and not read: {one.place}")
        else:
            one.notes.append("no notebook of a set: a person has to look at it")
            one.data = None
            others_key = (one.student, one.set or "?")
            if others_key in found:
                found[others_key].notes.append(f"also handed in, and not read: {one.place}")
            else:
                found[others_key] = one
    return [found[key] for key in sorted(found)]


def _files(folder: Path) -> Iterator[_File]:
    """Every file, also in zip files; links are named and not followed."""
    # In the order of their names, on every machine.
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        here = Path(place)
        for name in sorted([*names, *(one for one in folders if (here / one).is_symlink())]):
            path = here / name
            if _hidden(name):
                continue
            parts = tuple(_clean(part) for part in path.relative_to(folder).parts)
            try:
                if path.is_symlink() or not path.is_file():
                    yield _File(parts, None, 0.0, "a link or no file: left out")
                    continue
                when, size = path.stat().st_mtime, path.stat().st_size
                if size > MAX_BYTES:
                    yield _File(parts, None, when, f"larger than {MAX_BYTES >> 20} MB: left out")
                    continue
                data = path.read_bytes()
            except OSError as error:
                yield _File(parts, None, 0.0, f"cannot be read ({error.strerror})")
                continue
            yield from _unzipped(_File(parts, data, when), [MAX_BYTES])


def _unzipped(file: _File, left: list[int], depth: int = 0) -> Iterator[_File]:
    """The files of a zip file, also of one in it, as a platform packs what students packed.

    Anything else is returned as it is. ``left`` holds the bytes that may still be unpacked.
    """
    parts, data, when = file.parts, file.data, file.when
    packed = re.search(r"(?i)\.(zip|ipynb)", parts[-1]) and data[:4] == b"PK\x03\x04"
    if not packed or depth > 2:
        yield file
        return
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            entries = [one for one in archive.infolist() if not one.is_dir()]
            left[0] -= sum(one.file_size for one in entries)
            if left[0] < 0 or len(entries) > 10_000:
                yield _File(parts, None, when, "unpacks to too much: left out")
                return
            for entry in entries:
                inner = tuple(part for part in re.split(r"[/\\]", entry.filename) if part)
                if any(_hidden(part) or part == ".." for part in inner):
                    continue
                stamp = time.mktime((*entry.date_time, 0, 0, -1))
                stem = re.sub(r"(?i)\.(zip|ipynb)$", "", parts[-1])
                whole = (*parts[:-1], stem, *map(_clean, inner))
                packs = (*file.packs, len(parts))
                inner_file = _File(whole, archive.read(entry), stamp, packs=packs)
                yield from _unzipped(inner_file, left, depth + 1)
    except Exception as error:  # a damaged file stops nobody
        yield _File(parts, None, when, f"cannot be unpacked ({error})")


def _hidden(name: str) -> bool:
    return name.startswith(".") or bool(IGNORED.fullmatch(name))


def _clean(name: str) -> str:
    """A name as text that every file and terminal can hold."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode("utf-8"))


def _set_of(file: _File, names: re.Pattern, frames: dict[str, Frame]) -> str:
    """The set that the file, the nearest folder, or the content names."""
    for part in reversed(stem(file.parts)):
        if match := names.search(part):
            return match[1].lower()
    if not frames:
        return ""
    text, _ = text_of(file.data)
    votes = {}
    for name, frame in frames.items():
        wanted = [one for part in frame.parts.values() for one in part.names]
        votes[name] = sum(text.count(one) > 0 for one in wanted)
    best = max(votes.values())
    winners = [name for name in votes if votes[name] == best]
    return winners[0] if best and len(winners) == 1 else ""
