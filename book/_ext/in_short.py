"""What a chapter found, at its head, and how long it takes; a Sphinx extension.

Each sentence of the directive ``in-short`` supposes a verdict, as in ``- AS-1 holds: …``. On a page
whose run came to another one, or whose profile is ``smoke``, the sentence is replaced by that
verdict. A chapter that goes beyond the papers' claims has sentences that suppose nothing, as in
``- measured: … {glue:text}`number` …``. The role ``minutes`` gives the reading time of pages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from jupyter_cache import get_cache
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective, SphinxRole

from book._ext.agreement import stands_on
from book._ext.cache import record_of
from book._ext.scorecard import claims_in, other_runs
from helpers.results.claims import INVENTORY, VERDICTS
from helpers.settings import SETTINGS

WORDS_A_MINUTE = 200  # of plain prose, which has no formulae
LINES_A_MINUTE = 15  # of code
PROSE = (nodes.paragraph, nodes.title, nodes.caption)
FOLDED = ("tag_hide-input", "tag_remove-input", "tag_hide-cell")  # cells whose code is
MEASURED = "- measured: "  # true in any run: its numbers and verdicts come from there
ITEM = re.compile(rf"- (?P<id>[A-Z]+-\d+) (?P<verdict>{'|'.join(VERDICTS)}): (?P<text>.+)", re.S)


class short_list(nodes.bullet_list):
    """The sentences of a chapter."""


class reading_time(nodes.Inline, nodes.TextElement):
    """Placeholder for the minutes that some pages take to read."""


class InShort(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        box, found = nodes.container(classes=["in-short"]), short_list()
        box += nodes.paragraph("", "", nodes.strong("", "In short"))
        for item in re.split(r"\n(?=- )", "\n".join(self.content)):
            match, item = ITEM.fullmatch(item.strip()), item.strip()
            if item.startswith(MEASURED):
                entry, text = nodes.list_item(""), item.removeprefix(MEASURED)
            elif match and match["id"] in INVENTORY:
                entry = nodes.list_item("", id=match["id"], supposed=match["verdict"])
                text = match["text"]
            else:
                raise self.error(
                    f"“{item}” is not of the form “- AS-1 holds: sentence” or “{MEASURED}sentence”."
                )
            paragraph = nodes.paragraph()
            inlines, messages = self.parse_inline(" ".join(text.split()))
            paragraph += [*inlines, *messages]
            entry += paragraph
            found += entry
        box += [found, nodes.paragraph("", "", reading_time(pages=[self.env.docname], run=True))]
        return [box]


class Minutes(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        pages = [page.strip() for page in self.text.split(",")]
        return [reading_time(pages=pages, run=False)], []


def within(node: nodes.Node, *classes: str) -> bool:
    """Whether a node or one that holds it has one of these classes."""
    while node is not None:
        if isinstance(node, nodes.Element) and {*classes} & {*node.get("classes", [])}:
            return True
        node = node.parent
    return False


def minutes_to_read(doctree: nodes.document) -> tuple[float, float]:
    """Minutes for what a page shows, and for what it shows only when asked.

    Folded are code cells with such a tag, boxes of the class ``dropdown``, and HTML's ``details``
    (hints, solutions). Outputs are taken in at a glance, and formulae too.
    """
    words, lines, hints = {False: [], True: []}, {False: 0, True: 0}, 0
    for node in doctree.findall():
        shut = hints > 0 or within(node, "dropdown")
        if isinstance(node, nodes.raw):
            hints += node.astext().count("<details") - node.astext().count("</details")
        elif isinstance(node, nodes.literal_block) and not within(node, "cell_output"):
            lines[shut or within(node, *FOLDED)] += len(node.astext().splitlines())
        elif isinstance(node, PROSE):
            words[shut].append("\n")
        elif isinstance(node, nodes.Text) and in_prose(node):
            words[shut].append(node.astext())
    spoken, silent = (len("".join(words[shut]).split()) / WORDS_A_MINUTE for shut in (False, True))
    return spoken + lines[False] / LINES_A_MINUTE, silent + lines[True] / LINES_A_MINUTE


def in_prose(text: nodes.Text) -> bool:
    node = text.parent
    while node is not None and not isinstance(node, (nodes.literal_block, nodes.raw)):
        if isinstance(node, PROSE):
            return True
        node = node.parent
    return False


def seconds_to_run(notebook: NotebookNode) -> float | None:
    """From the chapter's colophon (:func:`helpers.results.glue.colophon`)."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []):
            for metadata in output.get("metadata", {}).values():
                if isinstance(metadata, dict) and "seconds" in metadata.get("run", {}):
                    return metadata["run"]["seconds"]
    return None


def executed(app: Sphinx, page: str) -> NotebookNode | None:
    """The executed notebook of a page, from jupyter-book's cache."""
    folder = app.config.nb_execution_cache_path or Path(app.outdir).parent / ".jupyter_cache"
    cache, path = get_cache(folder), Path(app.srcdir, f"{page}.ipynb")
    record = record_of(cache, path) if path.is_file() else None
    return cache.get_cache_bundle(record.pk).nb if record else None


def fill_in(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Keep each sentence whose verdict this run confirms, and put the times in."""
    lists = list(doctree.findall(short_list))
    notebook = executed(app, docname) if lists else None
    claims = {claim.id: claim for claim in claims_in(notebook)} if notebook else {}
    others = other_runs(app) if lists else {}
    for found in lists:
        for entry in found.children:
            if "id" not in entry:  # supposes no verdict
                continue
            # The sentence, or what the claim says
            claim = claims.get(entry["id"])
            verdict = claim.verdict if claim else "no verdict"
            (paragraph,) = entry.children
            if verdict != entry["supposed"] or SETTINGS.profile == "smoke":
                words = INVENTORY[entry["id"]]["statement"]
                paragraph.children = [nodes.Text(f"The claim: {words}")]
            # In front of it the claim and this run's verdict
            link = nodes.reference("", entry["id"], refuri=f"#{entry['id'].lower()}")
            chip = nodes.inline("", verdict, classes=["verdict", verdict.replace(" ", "-")])
            paragraph.insert(0, [link, nodes.Text(" "), chip, nodes.Text(" ")])
            if (standing := stands_on(claim, others)) and standing.fresh:
                there = f"{standing.fresh_same} of {standing.fresh}"
                paragraph += nodes.Text(f" (On fresh data the same verdict in {there} runs.)")
    for node in list(doctree.findall(reading_time)):
        node.replace_self(nodes.Text(times(app.env, node["pages"], notebook, node["run"])))


def times(env: BuildEnvironment, pages: list[str], notebook: NotebookNode | None, run: bool) -> str:
    """Such as “14 minutes”, or for a chapter with its folded parts and the time that it ran."""
    shown, folded = np.sum([minutes_to_read(env.get_doctree(page)) for page in pages], axis=0)
    n, n_all = max(1, round(shown)), max(1, round(shown + folded))
    text = f"{n} minute{'s' if n > 1 else ''}"
    if not run:
        return text
    more = f", {n_all} with all that is folded" if n_all > n else ""
    seconds = seconds_to_run(notebook) if notebook else None
    ran = f"; {seconds:.0f} seconds to run" if seconds is not None else ""
    return f"About {text} to read{more}{ran}."


def setup(app: Sphinx) -> dict[str, Any]:
    for node in (short_list, reading_time):
        app.add_node(node)
    app.add_directive("in-short", InShort)
    app.add_role("minutes", Minutes())
    app.connect("doctree-resolved", fill_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
