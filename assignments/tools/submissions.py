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
from assignments.tools.reading import MAX_BYTES, text_of
from assignments.tools.roster import Roster, folded

NOTEBOOK = re.compile(r"(\.ipynb)(\.(txt|json|md|bin))?( \(\d+\))?$|\.json$", re.IGNORECASE)
IGNORED = re.compile(
    r"checks(\.py)?|.*_attempt_[\d-]+\.txt|thumbs\.db|desktop\.ini|timestamp\.txt|__MACOSX"
    r"|__pycache__|.*\.pyc",
    re.IGNORECASE,
)
# How the exports of learning platforms name a file or folder.
LMS = [
    re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<rest>.*)"),
    re.compile(r"(?P<name>[^\W_A-Z]+)_(?:LATE_)?(?P<id>\d+)_\d+_(?P<rest>.+)"),  # Canvas
    re.compile(r"(?P<rest1>.+)_(?P<id>[^_]+)_attempt_[\d-]+(?:_(?P<rest>.+))?"),  # Blackboard
    re.compile(r"(?P<id>[^+]+)\+(?P<rest>[^+]+)\+[^+]+(?:\+.*)?"),  # nbgrader's exchange
]
NOISE = re.compile(
    r"(v?\d+|draft|final(ly)?|copy|kopie|version|new|old|fixed|late|submission|submitted|homework"
    r"|hw|solutions?|answers?|problem|set|assignment|notebook|untitled|checkpoint|my|the|last|of"
    r"|done|corrected|export|ipynb)",
    re.IGNORECASE,
)
GROUP = re.compile(
    r"(section|sec|group|class|lab|tutorial|course|submissions?|submitted|handed.?in|inbox|week"
    r"|export|download|all)[\W_]*\w{0,3}",
    re.IGNORECASE,
)


@dataclass
class Handed:
    """One file of one student; ``set`` is "" if nothing tells which set it is.

    Attributes:
        place: its path below the folder of submissions, as text.
        data: its bytes; None for something that is no file of a student.
    """

    student: str
    set: str
    place: str
    data: bytes | None
    when: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass
class _File:
    parts: tuple[str, ...]
    data: bytes | None
    when: float
    note: str = ""


def find(folder: Path, frames: dict[str, Frame], roster: Roster) -> list[Handed]:
    """Every student's file for every set, the newest of several; files that are none of these too.

    Every file below the folder is in the result or named in the notes of one that is, but for
    hidden files and handed-out ones.
    """
    # The newest file counts, so older ones come first.
    longest_first = sorted(frames, key=len, reverse=True)
    names = re.compile(rf"({'|'.join(map(re.escape, longest_first))})(?![0-9])", re.IGNORECASE)
    files = sorted(_files(folder), key=lambda file: (file.when, file.parts))
    shared = _shared_folders(files, names)
    found: dict[tuple[str, str], Handed] = {}
    others: list[Handed] = []
    for file in files:
        notebook = bool(NOTEBOOK.search(file.parts[-1])) and file.data is not None
        set_name = _set_of(file, names, frames if notebook else {})
        student, note = _student_of(file.parts, names, roster, shared)
        late = "the platform says that it was late" if "_LATE_" in file.parts[-1] else ""
        notes = [one for one in (note, file.note, late) if one]
        one = Handed(student, set_name, "/".join(file.parts), file.data, file.when, notes)
        if not notebook or not set_name:
            others.append(one)
            continue
        if older := found.get((student, set_name)):
            one.notes.append(f"handed in more than once; {one.place} counts, not {older.place}")
        found[student, set_name] = one
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
                inner_file = _File(whole, archive.read(entry), stamp)
                yield from _unzipped(inner_file, left, depth + 1)
    except Exception as error:  # a damaged file stops nobody
        yield _File(parts, None, when, f"cannot be unpacked ({error})")


def _hidden(name: str) -> bool:
    return name.startswith(".") or bool(IGNORED.fullmatch(name))


def _clean(name: str) -> str:
    """A name as text that every file and terminal can hold."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode("utf-8"))


def _stem(parts: tuple[str, ...]) -> list[str]:
    """Parts of a path, the file's without what makes it a notebook."""
    last = NOTEBOOK.sub("", parts[-1])
    return [*parts[:-1], last if last != parts[-1] else parts[-1].rpartition(".")[0] or last]


def _set_of(file: _File, names: re.Pattern, frames: dict[str, Frame]) -> str:
    """The set that the file, the nearest folder, or the content names."""
    for part in reversed(_stem(file.parts)):
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


def _rest(part: str, names: re.Pattern) -> str:
    """What a name says besides the set and words such as "final"."""
    rest = names.sub(" ", part).strip(" -_.()+")
    words = [word for word in re.split(r"[\s_\-().+]+", rest) if word]
    return "" if all(NOISE.fullmatch(word) for word in words) else rest


def _shared_folders(files: list[_File], names: re.Pattern) -> set[tuple[str, ...]]:
    """Folders that hold files of several people, by the files' names."""
    people: dict[tuple[str, ...], set[str]] = {}
    for file in files:
        if NOTEBOOK.search(file.parts[-1]):
            rest, above = _rest(_stem(file.parts)[-1], names), " ".join(file.parts[:-1])
            if rest and folded(rest) not in folded(above):
                people.setdefault(file.parts[:-1], set()).add(folded(rest))
    return {folder for folder, rests in people.items() if len(rests) > 1}


def _owner(parts: tuple[str, ...], names: re.Pattern) -> list[str]:
    """Folders above a file that may be a person's, the nearest first."""
    rests = [_rest(part, names) for part in reversed(parts[:-1]) if not GROUP.fullmatch(part)]
    return [rest for rest in rests if rest]


def _student_of(
    parts: tuple[str, ...], names: re.Pattern, roster: Roster, shared: set
) -> tuple[str, str]:
    """The student's id and a note if that is uncertain."""
    for part in reversed(_stem(parts)):
        for pattern in LMS:
            if match := pattern.fullmatch(part):
                name = match.groupdict().get("name") or ""
                told = [match["id"], name]
                if person := roster.find(told):
                    return person, ""
                return "_".join(one for one in (name, match["id"]) if one), roster.unknown
    above = _owner(parts, names)
    rest = _rest(_stem(parts)[-1], names)
    candidates = [*above[:1], rest, *above[1:]]
    if parts[:-1] in shared:
        candidates = [rest, *above]
    candidates = [one for one in candidates if one]
    for one in candidates:
        if person := roster.find([one]):
            return person, ""
    return (candidates or ["/".join(parts[:-1]) or "unnamed"])[0], roster.unknown
