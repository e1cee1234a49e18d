"""Which files a result depends on: one answer for the build, for sweeps and for workers.

Source is followed to every file of the repository that it reaches, and none of it is run. For a
live function, ``helpers.runs.digest`` adds what no file says.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
# A table in this folder counts wherever code has its name. As it stands here, it is named nowhere.
RECORDED = Path(*"book results".split())


def files_of(
    sources: Iterable[tuple[str, Path]], root: Path = ROOT, known: dict | None = None
) -> set[Path]:
    """Every repository file that running some Python may read.

    These are the modules that it imports, directly or not; the data in their packages; and the
    files, folders and patterns of files that its strings name, recorded tables among them.

    Args:
        sources: pieces of code, each with the folder that it lies in. What it imports or names
            is looked for there and in ``root``. Code that cannot be parsed reaches nothing.
        root: the repository.
        known: keeps what modules and packages reach from one call to the next, while no file
            changes.
    """
    root, found = root.resolve(), set()
    known = {} if known is None else known
    waiting = [(source, folder.resolve()) for source, folder in sources]
    while waiting:
        here = waiting.pop()
        if here not in known:
            known[here] = _reached(*here, root, known)
        for path in known[here] - found:
            if path.suffix == ".py":
                waiting.append((path.read_text(encoding="utf-8"), path.parent))
        found |= known[here]
    return found


def _reached(source: str, folder: Path, root: Path, known: dict) -> set[Path]:
    """The files that one source reaches by itself."""
    imports, strings = _names_in(source)
    tables = (root / RECORDED).glob("*")
    found = {path for path in tables if path.stem in source or RECORDED.name in strings}
    for level, name in imports:
        found.update(_modules(level, name, folder, root, known))
    for string in strings:
        found.update(_named(string, folder, root, known))
    return found


def files_digest(files: Iterable[Path], root: Path = ROOT) -> str:
    """A digest of the names and contents of files."""
    rows = []
    for path in sorted(files):
        name = path.relative_to(root) if path.is_relative_to(root) else path.name
        rows.append(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def is_own(path: Path) -> bool:
    """Whether a file is neither Python's nor an installed package's; those are not followed."""
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    installed = installed or any(map(path.is_relative_to, _libraries(*sys.path)))
    return path.is_relative_to(PACKAGE) or not installed


@cache
def _libraries(*places: str) -> list[Path]:
    """The folder of Python's own modules, and those that packages are installed in."""
    found = [Path(place).resolve() for place in places if any(Path(place).glob("*.dist-info"))]
    return [STDLIB, *found]


@cache
def _names_in(source: str) -> tuple[set[tuple[int, str]], set[str]]:
    """What a source imports, as (level of a relative import, dotted name), and its strings.

    Docstrings are left out; what an f-string fills in becomes ``*``. Words in a string that look
    like a path or a module count as well, for commands such as ``"python -m helpers.x"``.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set(), set()
    imports, strings, statements = set(), set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                imports |= {(0, alias.name) for alias in node.names}
            case ast.ImportFrom():
                # "from a import b": b may be a module or a name in one.
                base = f"{node.module}." if node.module else ""
                imports |= {(node.level, base + alias.name) for alias in node.names}
            case ast.Expr(value=ast.Constant()):
                statements.add(node.value)
            case ast.Constant(value=str()) if node not in statements:
                strings.add(node.value)
            case ast.JoinedStr():
                parts = [getattr(part, "value", None) for part in node.values]
                strings.add("".join(part if isinstance(part, str) else "*" for part in parts))
    words = {word for string in strings for word in string.split()}
    return imports, strings | {word for word in words if re.search(r"\w[./]\w", word)}


def _modules(level: int, name: str, folder: Path, root: Path, known: dict) -> Iterator[Path]:
    """The files that importing a module runs, and the data of the packages on the way."""
    for path in [[folder, *folder.parents][level - 1]] if level else {root, folder}:
        for part in name.split("."):
            if part == "*":
                yield from filter(is_own, path.glob("*.py"))
            path = path / part
            module = path.with_name(f"{part}.py")
            if module.is_file() and is_own(module):
                yield module
                continue
            if path not in known:  # most packages are imported by many modules
                known[path] = list(_package(path))
            yield from known[path]


def _package(folder: Path) -> Iterator[Path]:
    """A package's ``__init__.py`` and its data, without the packages inside it."""
    if (folder / "__init__.py").is_file() and is_own(folder):
        yield folder / "__init__.py"
        for path in folder.iterdir():
            if not (path / "__init__.py").exists():
                yield from (file for file in _contents(path, folder) if file.suffix != ".py")


def _contents(path: Path, base: Path) -> Iterator[Path]:
    """A file, or all files of a folder, without hidden and built ones."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        parts = file.relative_to(base).parts
        if file.is_file() and not any(part.startswith((".", "_build", "__py")) for part in parts):
            yield file


def _named(string: str, folder: Path, root: Path, known: dict) -> Iterator[Path]:
    """The files that a string in code may name: a module, a file, a folder, a pattern of files."""
    if not re.search(r"\w", string) or re.search(r"[\0\n\ud800-\udfff]", string):
        return
    if len(string.encode()) > 200:  # no file's name is as long
        return
    if re.fullmatch(r"\w+(\.\w+)*", string):
        yield from _modules(0, string, folder, root if "." in string else folder, known)
    is_pattern = "*" in string and "**" not in string and not string.startswith("/")
    # "*.csv" says nothing about where, unless the files lie beside the code.
    has_stem = not is_pattern or re.search(r"\w", Path(string).stem)
    for base in {folder, root, root / RECORDED} if has_stem else {folder}:
        for path in base.glob(string) if is_pattern else [base / string]:
            if not os.path.exists(path):
                continue
            path = path.resolve()
            home = root if path.is_relative_to(root) else folder
            # Folders around the code are no data; a bare word names a folder only beside the code.
            if path.is_relative_to(home) and not folder.is_relative_to(path):
                if path.is_file() or "/" in string or base == folder:
                    yield from _contents(path, home)
