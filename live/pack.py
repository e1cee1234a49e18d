"""Files and tensors in parts that a page can load, from a server and from disk.

All of them lie one after the other in one sequence of bytes, which is cut into parts. A page on a
server loads a part as a binary file. A page on disk may not, so there each part is also a script
that hands it over in base64.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from live.weights import Blocks

PART = 6 * 2**20  # bytes; a multiple of 3, so that a part's base64 needs no padding


@dataclass
class Pack:
    """What goes into the parts, and where it lies in them.

    Attributes:
        files: name -> offset and number of bytes; compressed with gzip.
        tensors: name -> type, shape, offset and number of bytes.
    """

    files: dict[str, dict] = field(default_factory=dict)
    tensors: dict[str, dict] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0

    def add_file(self, name: str, data: bytes) -> None:
        # No time of modification: the same contents give the same parts.
        self.files[name] = self._append(gzip.compress(data, mtime=0))

    def add_tensor(self, name: str, blocks: Blocks) -> None:
        where = self._append(blocks.data)
        self.tensors[name] = {"type": blocks.type, "shape": blocks.shape, **where}

    def _append(self, data: bytes) -> dict[str, int]:
        where = {"offset": self.size, "bytes": len(data)}
        # Floats must begin at a multiple of four bytes.
        data += bytes(-len(data) % 4)
        self.chunks.append(data)
        self.size += len(data)
        return where

    def write(self, folder: Path, facts: dict) -> None:
        """Write the parts, and ``manifest.js`` with their checksums and further facts."""
        folder.mkdir(parents=True)
        data, parts = b"".join(self.chunks), []
        for number, start in enumerate(range(0, len(data), PART)):
            name, part = f"part-{number:02}", data[start : start + PART]
            (folder / f"{name}.bin").write_bytes(part)
            text = base64.b64encode(part).decode()
            (folder / f"{name}.js").write_text(f'livePart("{name}", "{text}");\n')
            parts.append({"name": name, "bytes": len(part), "crc32": zlib.crc32(part)})
        manifest = {**facts, "parts": parts, "files": self.files, "tensors": self.tensors}
        text = json.dumps(manifest, separators=(",", ":"))
        (folder / "manifest.js").write_text(f"window.LIVE = {text};\n", encoding="utf-8")
