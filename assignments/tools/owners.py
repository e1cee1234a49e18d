"""Whose a file is, by the names of the folders, zip files and files that it comes in."""

from __future__ import annotations

import re

from assignments.tools.roster import Roster, folded

NOTEBOOK = re.compile(r"(\.ipynb)(\.(txt|json|md|bin))?( \(\d+\))?$|\.json$", re.IGNORECASE)
# How the exports of learning platforms name a file or folder.
LMS = [
    re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<rest>.*)"),
    re.compile(r"(?P<name>[^\W_A-Z]+)_(?:LATE_)?(?P<id>\d+)_\d+_(?P<rest>.+)"),  # Canvas
    re.compile(r"[^_]+_(?P<id>.+?)_attempt_[\d-]+(?:_(?P<rest>.+))?"),  # Blackboard
    re.compile(r"(?P<id>[^+]+)\+(?P<rest>[^+]+)\+[^+]+(?:\+.*)?"),  # nbgrader's exchange
]
NOISE = re.compile(
    r"(v?\d+|draft|final(ly)?|copy|kopie|version|new|old|fixed|late|submission|submitted|homework"
    r"|hw|solutions?|answers?|problem|set|assignment|notebook|untitled|checkpoint|my|the|last|of"
    r"|done|corrected|export|ipynb)",
    re.IGNORECASE,
)
# What ends a name and says only which copy of it this is.
VERSION = re.compile(
    r"([\W_]+(v\d+|draft|final|copy|version|fixed|submission|corrected)|[\W_]*\(\d+\))+[\W_]*$",
    re.IGNORECASE,
)
GROUP = re.compile(
    r"(section|sec|group|class|lab|tutorial|course|submissions?|submitted|handed.?in|inbox|week"
    r"|export|download|all)[\W_]*\w{0,3}",
    re.IGNORECASE,
)


def stem(parts: tuple[str, ...]) -> list[str]:
    """Parts of a path, the file's without what makes it a notebook."""
    last = NOTEBOOK.sub("", parts[-1])
    return [*parts[:-1], last if last != parts[-1] else parts[-1].rpartition(".")[0] or last]


class Owners:
    """Who handed in which file.

    A folder is read from the inside: the student is the folder next above the set. A zip file is
    read from the outside: what stands in it is whose it is, whatever names its owner wrote inside,
    unless it holds the work of several people.
    """

    def __init__(self, files: list, names: re.Pattern, roster: Roster) -> None:
        self.names, self.roster = names, roster
        # By folder and by zip file: the people that the names of what is in them tell apart.
        self.in_folder: dict[tuple, set[str]] = {}
        self.in_pack: dict[tuple, dict[str, set]] = {}
        for file in files:
            for length in file.packs:
                self.in_pack.setdefault(file.parts[:length], {"": set()})
            if not NOTEBOOK.search(file.parts[-1]):
                continue
            for parts in (file.parts, *(file.parts[:length] for length in file.packs)):
                last = stem(parts)[-1] if parts is file.parts else parts[-1]
                rest, above = self._rest(last), " ".join(parts[:-1])
                if rest and folded(rest) not in folded(above):
                    self.in_folder.setdefault(parts[:-1], set()).add(folded(rest))
            for length in file.packs:
                inner = file.parts[length:]
                people = self.in_pack[file.parts[:length]]
                told = frozenset(map(folded, self._candidates(inner, stem(inner)[-1])))
                people.setdefault(file.set, set()).add(told)

    def of(self, file) -> tuple[str, str]:
        """The student's id, and a note if the roster does not have it."""
        for length in file.packs:
            pack = file.parts[:length]
            student, sure = self._named(pack, is_file=False)
            if sure or (student and len(max(self.in_pack[pack].values(), key=len)) < 2):
                break
        else:
            student, sure = self._named(file.parts)
            student = student or "/".join(file.parts[:-1]) or "unnamed"
        return student, "" if student in self.roster.people else self.roster.unknown

    def _named(self, parts: tuple[str, ...], is_file: bool = True) -> tuple[str, bool]:
        """A student's id, or "", and whether a learning platform or the roster says so."""
        shown = stem(parts) if is_file else list(parts)
        for part in shown:  # the outermost first: a platform wrote it, and no student
            for pattern in LMS:
                if match := pattern.fullmatch(part):
                    return self._of_platform(match), True
        group = not is_file and GROUP.fullmatch(shown[-1])  # "submissions.zip" is nobody's name
        candidates = self._candidates(parts, "" if group else shown[-1])
        for one in candidates:
            if person := self.roster.find([one]):
                return person, True
        return (candidates or [""])[0], False

    def _of_platform(self, match: re.Match) -> str:
        name, number = match.groupdict().get("name") or "", match["id"]
        if "_attempt_" in match[0]:  # an assignment's name may have this sign, and an id too
            words = number.split("_")
            while len(words) > 1 and not self._rest(words[0]):
                del words[0]
            number = "_".join(words)
        return self.roster.find([number, name]) or "_".join(filter(None, (name, number)))

    def _candidates(self, parts: tuple[str, ...], last: str) -> list[str]:
        """What may be a person's name, the likeliest first: next above the set, then the file."""
        rests = [self._rest(one) for one in reversed(parts[:-1]) if not GROUP.fullmatch(one)]
        above, rest = [one for one in rests if one], self._rest(last)
        both = [*above[:1], rest, *above[1:]]
        if len(self.in_folder.get(parts[:-1], ())) > 1:
            both = [rest, *above]
        return [one for one in both if one]

    def _rest(self, part: str) -> str:
        """What a name says besides the set, words such as "final" and the number of a copy."""
        pieces, sure = [], False
        for piece in self.names.sub("\0", part).split("\0"):
            piece = VERSION.sub("", piece).strip(" -_.()+")
            words = [word for word in re.split(r"[\s_\-().+]+", piece) if word]
            told = not all(NOISE.fullmatch(word) for word in words)
            if told or piece.isdecimal():  # a number may be a group's
                pieces.append(piece)
            sure |= told
        return " ".join(pieces) if sure else ""
