"""The book's notebooks in JupyterLab: what its Markdown does not know is shown in a form it knows.

JupyterLab (with jupyterlab-myst) asks this contents manager for a notebook. Glued numbers become
expressions that the kernel evaluates whenever the cell is run, citations and links get their words,
and folds become boxes that open. When the notebook is saved, all of it is put back, so the file on
disk changes only where the reader changed it.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from pybtex.database import parse_file

BOOK = Path(__file__).parents[1]
KEPT = "book"  # in a cell's metadata: pairs of what is shown and what the file has
VALUES = "user_expressions"  # where jupyterlab-myst keeps what the kernel said

PIECES = re.compile(
    r":::\{(?P<box>in-short)\}"
    r"|^- (?:(?P<claim>[A-Z]+-\d+) (?P<verdict>[a-z ]+)|measured): "
    r"|\{glue:text\}`(?P<glued>[^`]+)`"
    r"|\{cite:(?P<how>[tp])\}`(?P<keys>[^`]+)`"
    r"|\{doc\}`(?:(?P<words>[^`<]+?)\s*<)?(?P<page>[^`<>]+)>?`"
    r"|\{(?P<kind>numref|eq)\}`(?P<label>[^`]+)`"
    r"|[ ]*<details><summary>(?P<fold>\w+)</summary>[ ]*"
    r"|(?P<end>[ ]*</details>)",
    re.MULTILINE,
)
INDENT = "   "  # folds stand in exercises, which are items of a numbered list


@cache
def citation(key: str, in_brackets: bool) -> str:
    """Authors, year and address of an entry of the bibliography, as a link."""
    entry = parse_file(str(BOOK / "references.bib")).entries[key]
    names = [" ".join(map(str, person.last_names)) for person in entry.persons["author"]]
    who = names[0] if len(names) == 1 else " and ".join(names)
    who = f"{names[0]} et al." if len(names) > 2 else who
    doi, year = entry.fields.get("doi"), entry.fields["year"]
    address = f"https://doi.org/{doi}" if doi else entry.fields.get("url", "")
    words = f"{who}, {year}" if in_brackets else f"{who} ({year})"
    return f"[{re.sub('[{}]', '', words)}]({address})" if address else words


@cache
def titled(path: Path) -> tuple[str, str]:
    """Title of a page and the name of its file, which is a notebook or Markdown."""
    if path.with_suffix(".ipynb").is_file():
        cells = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
        text, suffix = "".join(cells[0]["source"]), ".ipynb"
    else:
        text, suffix = path.with_suffix(".md").read_text(encoding="utf-8"), ".md"
    return re.search(r"^# (.+)", text, flags=re.MULTILINE)[1], suffix


class Page:
    """One notebook: where it lies, its labels, and what its outputs say was glued."""

    def __init__(self, folder: Path, cells: Iterable[dict]) -> None:
        self.folder, self.figures, self.glued, texts = folder, {}, {}, []
        for number, cell in enumerate(cells):
            figure = cell["metadata"].get("mystnb", {}).get("figure", {})
            if "name" in figure:
                self.figures[figure["name"]] = number
            for output in cell.get("outputs", ()):
                note = output.get("metadata", {}).get("scrapbook", {})
                value = output.get("data", {}).get(f"{note.get('mime_prefix')}text/plain")
                if value is not None:
                    self.glued[note["name"]] = "".join(value)
            texts.append("".join(cell["source"]))
        self.text = "\n".join(texts)

    def value(self, wanted: str) -> dict:
        """For jupyterlab-myst, a number as it was when the file was saved; else an ellipsis."""
        name, _, spec = wanted.partition(":")
        try:
            text = format(ast.literal_eval(self.glued[name]), spec)
        except (KeyError, ValueError, SyntaxError):  # not glued yet; what is no number or word
            text = "…"
        result = {"status": "ok", "data": {"text/plain": text}, "metadata": {}}
        return {"expression": f'glued["{wanted}"]', "result": result}

    def piece(self, match: re.Match, number: int) -> str:
        """What stands in JupyterLab for a piece of the cell with this number."""
        found = match.groupdict()
        # Findings, which JupyterLab cannot judge
        if found["box"]:
            return ":::{admonition} In short"
        if found["claim"]:
            return f"- *In a run where {found['claim']} comes out as “{found['verdict']}”:* "
        # Numbers and words within sentences
        if found["glued"]:
            return f'{{eval}}`glued["{found["glued"]}"]`'
        if found["keys"]:
            keys, in_brackets = found["keys"].split(","), found["how"] == "p"
            shown = "; ".join(citation(key.strip(), in_brackets) for key in keys)
            return f"({shown})" if in_brackets else shown
        if found["page"]:
            title, suffix = titled(self.folder / found["page"])
            return f"[{found['words'] or title}]({found['page']}{suffix})"
        if found["label"]:
            return self.reference(match, number)
        # Hints and solutions
        if found["fold"]:
            return (
                f"\n\n{INDENT}:::{{admonition}} {found['fold']}\n{INDENT}:class: dropdown\n{INDENT}"
            )
        return f"\n{INDENT}:::\n" if found["end"] else "- "

    def elsewhere(self, label: str) -> str:
        """The notebook that has an equation, as a link."""
        for path in sorted(BOOK.glob("*/*.ipynb")):
            if f"$$ ({label})" in path.read_text(encoding="utf-8"):
                place = os.path.relpath(path, self.folder)
                return f"`{label}` in [{titled(path.with_suffix(''))[0]}]({place})"
        raise KeyError(label)

    def reference(self, match: re.Match, number: int) -> str:
        """To a figure that a cell draws, or to an equation, which may be another notebook's."""
        label = match["label"]
        if match["kind"] == "eq":
            return match[0] if f"$$ ({label})" in self.text else self.elsewhere(label)
        if label not in self.figures:  # a drawing, which JupyterLab numbers itself
            return match[0]
        first = not match.string[: match.start()].strip() or match.string[match.start() - 2] == "."
        where = "above" if self.figures[label] < number else "below"
        return f"{'The' if first else 'the'} figure {where}"


def shown(content: dict, folder: Path) -> None:
    """Turn the Markdown cells of a notebook into what JupyterLab can show, and note what was."""
    page = Page(folder, content["cells"])
    for number, cell in enumerate(content["cells"]):
        if cell["cell_type"] != "markdown":
            continue
        pairs, wanted = [], []

        def put(match: re.Match, number=number, pairs=pairs, wanted=wanted) -> str:
            try:
                piece = page.piece(match, number)
            except (KeyError, OSError):  # a reader's own notebook may name what is nowhere
                return match[0]
            pairs.append((piece, match[0]))
            if match["glued"]:
                wanted.append(match["glued"])
            return piece

        cell["source"] = PIECES.sub(put, "".join(cell["source"]))
        cell["metadata"][KEPT] = pairs
        cell["metadata"][VALUES] = list(map(page.value, wanted))


def stored(content: dict) -> None:
    """Put back what the file has, also in cells that the reader has edited elsewhere."""
    for cell in content["cells"]:
        cell["metadata"].pop(VALUES, None)
        text, done = "".join(cell["source"]), ""
        for piece, source in cell["metadata"].pop(KEPT, ()):
            before, there, after = text.partition(piece)
            if there:
                done, text = done + before + source, after
        cell["source"] = done + text


class BookContents(AsyncLargeFileManager):
    """Jupyter Server's files, with notebooks as above."""

    async def get(self, path, content=True, type=None, format=None, require_hash=False):
        model = await super().get(path, content, type, format, require_hash)
        if content and model["type"] == "notebook":
            shown(model["content"], Path(self._get_os_path(path)).parent)
        return model

    async def save(self, model, path=""):
        if model.get("type") == "notebook" and model.get("content"):
            stored(model["content"])
        return await super().save(model, path)
