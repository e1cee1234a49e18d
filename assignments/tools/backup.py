"""Backup of the grader's files, in memory, while untrusted code runs."""

from __future__ import annotations

from pathlib import Path


def backup(folder: Path) -> dict[Path, bytes]:
    """The contents of every file in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def restore(contents: dict[Path, bytes]) -> list[Path]:
    """Write back files that were changed or deleted, and return them."""
    restored = []
    for path, content in contents.items():
        try:
            same = path.read_bytes() == content
        except OSError:
            same = False
        if not same:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            restored.append(path)
    return restored
