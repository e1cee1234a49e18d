"""From the bytes that were handed in to cells, whatever editor, mail program or LMS had them."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field

MAX_BYTES = 2**29
MAX_SOURCE = 200_000  # characters of a cell
MAX_TEXT = 4_000_000  # characters of all cells
IMAGE = re.compile(r"image/(png|jpeg|gif)")
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


class Unreadable(ValueError):
    """A file that is no notebook; the message says why."""


@dataclass
class Cell:
    """One cell of a submission.

    Attributes:
        kind: code, markdown or raw.
        id, grade_id: of the notebook and of nbgrader; "" if there is none.
        images: data URIs of pictures, pasted or drawn.
    """

    kind: str
    source: str
    id: str = ""
    grade_id: str = ""
    images: list[str] = field(default_factory=list)


def text_of(data: bytes) -> tuple[str, str]:
    """The text of a file, and a note if it was in an unusual encoding."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            note = "" if encoding == "utf-8-sig" else f"the file was in {encoding}"
            return data.decode(encoding, "replace"), note
    zeros = data[:200].count(0)
    if zeros > 20:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
        return data.decode(encoding, "replace"), f"the file was in {encoding}"
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        return data.decode(
            "cp1252", "replace"
        ), "the file was not in UTF-8; some letters may differ"


def read_cells(data: bytes) -> tuple[list[Cell], list[str]]:
    """The cells of a notebook, of any version, and notes on the file.

    Raises:
        Unreadable: the file is no notebook.
    """
    if len(data) > MAX_BYTES:
        raise Unreadable(f"the file is larger than {MAX_BYTES >> 20} MB")
    text, note = text_of(data)
    notes = [note] if note else []
    try:
        notebook = json.loads(text.strip("\ufeff\0\x1a \r\n\t"))
    except (ValueError, RecursionError) as error:
        if not text.strip():
            raise Unreadable("the file is empty") from error
        raise Unreadable(f"the file is no notebook ({str(error)[:80]})") from error
    if not isinstance(notebook, dict):
        raise Unreadable("the file is no notebook (JSON, but no object)")
    raw = notebook.get("cells")
    if raw is None:  # notebooks of version 3
        sheets = notebook.get("worksheets")
        sheets = sheets if isinstance(sheets, list) else []
        raw = [cell for sheet in sheets for cell in _dict(sheet).get("cells") or []]
    if not isinstance(raw, list):
        raise Unreadable("the file is no notebook (its cells are no list)")
    cells = [_cell(cell) for cell in raw if isinstance(cell, dict)]
    if not cells:
        raise Unreadable("the file is no notebook (it has no cells)")
    if sum(len(cell.source) for cell in cells) > MAX_TEXT:
        raise Unreadable(f"the cells hold more than {MAX_TEXT // 10**6} million characters")
    if len(cells) < len(raw):
        notes.append(f"{len(raw) - len(cells)} cells of the file were damaged")
    return cells, notes


def _cell(raw: dict) -> Cell:
    metadata = _dict(raw.get("metadata"))
    source = _text(raw.get("source", raw.get("input")))[:MAX_SOURCE]
    images = []
    for bundle in _dict(raw.get("attachments")).values():
        images += _images(bundle)
    outputs = raw.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        images += _images(_dict(output).get("data"))
    kind = raw.get("cell_type")
    return Cell(
        kind if kind in ("code", "markdown", "raw") else "raw",
        source.replace("\r\n", "\n").replace("\r", "\n"),
        _name(raw.get("id")),
        _name(_dict(metadata.get("nbgrader")).get("grade_id")),
        images[:8],
    )


def _images(bundle: object) -> list[str]:
    """Pictures as data URIs; nothing but base64 gets through."""
    found = []
    for kind, data in _dict(bundle).items():
        data = _text(data)
        if IMAGE.fullmatch(str(kind)) and len(data) < 4e6 and BASE64.fullmatch(data):
            found.append(f"data:{kind};base64,{''.join(data.split())}")
    return found


def _dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _name(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text(value: object) -> str:
    """A source, which may be a list of lines, without half characters (lone surrogates)."""
    if isinstance(value, list):
        value = "".join(str(line) for line in value)
    text = value if isinstance(value, str) else ""
    return text.encode("utf-8", "replace").decode("utf-8")
