"""Files that student code might reach: their contents kept in memory, and put back if they are found changed or gone."""

from __future__ import annotations

from pathlib import Path


class Vault:
    """Keeps files while code that is not trusted runs."""

    def __init__(self) -> None:
        self._kept: dict[Path, bytes] = {}

    def keep(self, *paths: Path) -> None:
        """Remember the files as they are now; folders with all that is in them."""
        for path in paths:
            files = path.rglob("*") if path.is_dir() else [path]
            self._kept |= {file: file.read_bytes() for file in files if file.is_file()}

    def restore(self) -> list[Path]:
        """Put back what was changed or deleted since.

        Returns:
            The files that had to be put back.
        """
        put_back = []
        for path, content in self._kept.items():
            try:
                same = path.read_bytes() == content
            except OSError:
                same = False
            if not same:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                path.write_bytes(content)
                put_back.append(path)
        return put_back
