"""The scorecard: every result of both papers beside ours, gathered from what the executed chapters recorded.

Nothing is written by hand: a chapter's closing table (``helpers.results.claims``) carries its claims as JSON among its outputs, and
this module reads them out of the cache of executed notebooks. A result that no chapter recorded is shown as missing.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from jupyter_cache.base import JupyterCacheAbstract
from nbformat import NotebookNode

from helpers.results.claims import INVENTORY, MIME, VERDICTS, Claim, sample_size

PAPERS = {"AS": "Activation scaling", "OP": "Observable propagation"}
MISSING = "missing"

COLUMNS = (
    "id",
    "where",
    "statement",
    "paper",
    "ours",
    "value",
    "low",
    "high",
    "n",
    "unit",
    "seeds",
    "model",
    "verdict",
    "page",
)


@dataclass(frozen=True)
class Row:
    """One result: where it stands in its paper, and the claim that a chapter recorded for it, if one did.

    Attributes:
        id: as in ``claims.toml``.
        claim: None where the record is missing.
        page: the chapter, without suffix, relative to ``book/``.
    """

    id: str
    claim: Claim | None = None
    page: str | None = None

    @property
    def verdict(self) -> str:
        return self.claim.verdict if self.claim else MISSING

    @property
    def link(self) -> str | None:
        """The figure that shows the result, or else the chapter's closing table."""
        if self.claim is None:
            return None
        return f"{self.page}.html#{self.claim.figure or self.id.lower()}"


def claims_in(notebook: NotebookNode) -> list[Claim]:
    """The claims among an executed notebook's outputs."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [
        Claim(**record) for output in outputs for record in output.get("data", {}).get(MIME, [])
    ]


def executed(
    results: JupyterCacheAbstract, notebooks: Iterable[Path], book: Path
) -> dict[str, NotebookNode]:
    """Executed notebooks out of jupyter-book's cache, by page; those that failed are left out."""
    from book._ext.build import (
        record_of,  # which names this module's chapters, so that it is imported late
    )

    found = {path: record for path in notebooks if (record := record_of(results, path)) is not None}
    return {
        path.relative_to(book).with_suffix("").as_posix(): results.get_cache_bundle(record.pk).nb
        for path, record in found.items()
    }


def scorecard(pages: Mapping[str, NotebookNode]) -> list[Row]:
    """One row for each result of both papers, in their order.

    Args:
        pages: executed notebooks by page.

    Raises:
        ValueError: a result is recorded twice, or under an id that no paper has.
    """
    recorded: dict[str, Row] = {}
    for page, notebook in pages.items():
        for claim in claims_in(notebook):
            if claim.id not in INVENTORY:
                raise ValueError(f"{page} records {claim.id}, which is no result of either paper.")
            if claim.id in recorded:
                raise ValueError(
                    f"{claim.id} is recorded twice: by {recorded[claim.id].page} and {page}."
                )
            recorded[claim.id] = Row(claim.id, claim, page)
    return [recorded.get(id, Row(id)) for id in INVENTORY]


def counts(rows: Sequence[Row]) -> Counter[str]:
    """How many results have each verdict."""
    return Counter(row.verdict for row in rows)


def as_csv(rows: Sequence[Row]) -> str:
    """The scorecard for programs; numbers in full."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        claim = (
            {name: getattr(row.claim, name) for name in COLUMNS if hasattr(row.claim, name)}
            if row.claim
            else {}
        )
        page = f"{row.page}.html" if row.page else ""
        writer.writerow(
            claim
            | {
                "id": row.id,
                "where": INVENTORY[row.id]["where"],
                "verdict": row.verdict,
                "page": page,
            }
        )
    return text.getvalue()


def read_csv(text: str) -> dict[str, dict[str, str]]:
    """A scorecard that another run wrote, by id.

    Raises:
        ValueError: it is not a scorecard.
    """
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(
            f"a scorecard has the columns {', '.join(COLUMNS)}; this file has {reader.fieldnames}."
        )
    return {row["id"]: row for row in reader}


def as_html(
    rows: Sequence[Row], others: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None
) -> str:
    """The scorecard for readers: counts, then a table that can be filtered where there is JavaScript.

    Args:
        rows: this run's.
        others: scorecards of other runs, by model or seed; each becomes a column.
    """
    others = others or {}
    heads = ["Result", "Paper", "Ours", "Verdict", *others]
    return "\n".join(
        [
            _counts_table(rows),
            _agreement(rows, others),
            _filters(),
            "<div class='scrolls'><table class='claims scorecard'><thead><tr>",
            *(f"<th scope='col'>{escape(head)}</th>" for head in heads),
            "</tr></thead><tbody>",
            *(_table_row(row, others) for row in rows),
            "</tbody></table></div>",
        ]
    )


def _counts_table(rows: Sequence[Row]) -> str:
    words = [*VERDICTS, *([MISSING] if counts(rows)[MISSING] else [])]
    lines = {
        name: counts([row for row in rows if row.id.startswith(paper)])
        for paper, name in PAPERS.items()
    }
    lines["Both papers"] = counts(rows)
    head = "".join(f"<th scope='col'>{word}</th>" for word in (*words, "results"))
    body = "".join(
        f"<tr><th scope='row'>{name}</th>{''.join(f'<td>{line[word]}</td>' for word in words)}<td>{line.total()}</td></tr>"
        for name, line in lines.items()
    )
    return f"<div class='scrolls'><table class='counts'><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _agreement(rows: Sequence[Row], others: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """A sentence for each other run: how many of its verdicts are these, and which are not."""
    sentences = []
    for name, table in others.items():
        there = {
            row.id: table[row.id]["verdict"]
            for row in rows
            if row.claim and table.get(row.id, {}).get("verdict") in VERDICTS
        }
        differ = [
            f"{row.id} <em>{there[row.id]}</em>, here <em>{row.verdict}</em>"
            for row in rows
            if there.get(row.id, row.verdict) != row.verdict
        ]
        which = f"; the others: {'; '.join(differ)}" if differ else ""
        sentences.append(
            f"<p><strong>{escape(name)}</strong>: {len(there) - len(differ)} of {len(there)} verdicts are the same{which}.</p>"
        )
    return "".join(sentences)


def _filters() -> str:
    """Two lists to choose from; hidden until the script of the pages has taken them up."""
    options = {
        "paper": ("Paper", list(PAPERS.items())),
        "verdict": ("Verdict", [(word, word) for word in VERDICTS]),
    }
    chosen = "".join(
        f"<label>{title} <select data-filter='{name}'><option value=''>all</option>"
        + "".join(f"<option value='{value}'>{text}</option>" for value, text in choices)
        + "</select></label> "
        for name, (title, choices) in options.items()
    )
    return f"<p class='scorecard-filter' hidden>{chosen}<output aria-live='polite'></output></p>"


def _table_row(row: Row, others: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    claim, where = row.claim, INVENTORY[row.id]["where"]
    cells = [f"<strong>{row.id}</strong> <small>{where}</small>"]
    if claim is None:
        cells += ["", f"no chapter has recorded {row.id}"]
    else:
        cells[0] += (
            f"<br>{escape(claim.statement)} <a href='{row.link}'>{'figure' if claim.figure else 'chapter'}</a>"
        )
        cells += [
            escape(claim.paper),
            f"{escape(claim.ours)}<br><small>{sample_size(claim)}</small>",
        ]
    cells.append(f"<strong>{row.verdict}</strong>")
    for table in others.values():
        there = table.get(row.id)
        cells.append(
            f"<strong>{escape(there['verdict'])}</strong><br><small>{escape(there['ours'])}</small>"
            if there
            else ""
        )
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr data-paper='{row.id[:2]}' data-verdict='{row.verdict}'>{body}</tr>"
