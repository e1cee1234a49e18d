"""The scorecard: every numbered result of both papers beside ours; a Sphinx extension.

The chapters' closing tables (:mod:`helpers.results.claims`) carry their claims as JSON. The
directive ``scorecard`` reads them out of the cache of executed notebooks, one row for each id of
``claims.toml``; a result that no chapter recorded is shown as missing and makes the build fail.
``scorecard.csv`` at the root of the site holds the same for programs.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
from docutils import nodes
from jupyter_cache import get_cache
from jupyter_cache.base import JupyterCacheAbstract
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from book._ext.agreement import Table, compare, differing, stands_on
from book._ext.cache import notebooks, record_of
from helpers.results.claims import INVENTORY, MIME, VERDICTS, Claim, sample_size

logger = logging.getLogger(__name__)
TEMPLATE = Path(__file__).with_suffix(".html")
OTHER_RUNS = "scorecards"  # folder in book/: one CSV file a run, named after its model and seed
PAPERS = {"AS": "Activation scaling", "OP": "Observable propagation"}
MISSING = "missing"
SHORT = 90  # characters of a figure that a row shows
COLUMNS = tuple(
    "id where statement paper ours value low high n unit seeds model verdict power criterion "
    "page".split()
)


@dataclass(frozen=True)
class Row:
    """One result, and the claim that a chapter recorded for it.

    Attributes:
        id: as in ``claims.toml``.
        claim: None where no chapter recorded one.
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
        """The figure that shows the result, else the chapter's closing table."""
        if self.claim is None:
            return None
        return f"{self.page}.html#{self.claim.figure or self.id.lower()}"


def claims_in(notebook: NotebookNode) -> list[Claim]:
    """The claims among an executed notebook's outputs."""
    claims = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            records = output.get("data", {}).get(MIME, [])
            claims += [Claim(**record) for record in records]
    return claims


def executed(
    cache: JupyterCacheAbstract, paths: Iterable[Path], book: Path
) -> dict[str, NotebookNode]:
    """Executed notebooks from jupyter-book's cache, by page; those that failed are not in it."""
    pages = {}
    for path in paths:
        if (record := record_of(cache, path)) is not None:
            page = path.relative_to(book).with_suffix("").as_posix()
            pages[page] = cache.get_cache_bundle(record.pk).nb
    return pages


def scorecard(pages: Mapping[str, NotebookNode]) -> list[Row]:
    """One row for each result of both papers, in the order of ``claims.toml``.

    Args:
        pages: executed notebooks by page.

    Raises:
        ValueError: a result is recorded twice, or under an unknown id.
    """
    recorded: dict[str, Row] = {}
    for page, notebook in pages.items():
        for claim in claims_in(notebook):
            if claim.id not in INVENTORY:
                raise ValueError(f"{page} records {claim.id}, which is no result of either paper.")
            if claim.id in recorded:
                other = recorded[claim.id].page
                raise ValueError(f"{claim.id} is recorded twice: by {other} and {page}.")
            recorded[claim.id] = Row(claim.id, claim, page)
    return [recorded.get(id, Row(id)) for id in INVENTORY]


def counts(rows: Sequence[Row]) -> Counter[str]:
    """Number of results by verdict."""
    return Counter(row.verdict for row in rows)


def as_csv(rows: Sequence[Row]) -> str:
    """The scorecard for programs; numbers in full."""
    text = io.StringIO()
    # A claim's figure stays in the chapter.
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        record = asdict(row.claim) if row.claim else {}
        page = f"{row.page}.html" if row.page else ""
        record |= {"id": row.id, "where": INVENTORY[row.id]["where"]}
        record |= {"verdict": row.verdict, "page": page}
        writer.writerow(record)
    return text.getvalue()


def read_csv(text: str) -> dict[str, dict[str, str]]:
    """Another run's scorecard, by id.

    Raises:
        ValueError: it is not a scorecard.
    """
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        expected = ", ".join(COLUMNS)
        raise ValueError(f"a scorecard has the columns {expected}; this has {reader.fieldnames}.")
    return {row["id"]: row for row in reader}


def first_part(text: str) -> str:
    """The first part of a list of figures, shortened; the page has the whole one folded."""
    part = text.partition(";")[0]
    short = textwrap.shorten(part, SHORT, placeholder=" …")
    return short if part == text or short.endswith("…") else f"{short} …"


def as_html(rows: Sequence[Row], others: Mapping[str, Table] | None = None) -> str:
    """The scorecard for readers: counts, filters (shown by JavaScript), and the table.

    Args:
        rows: this run's.
        others: scorecards of other runs, by model or seed; a row marks those that differ.
    """
    others = others or {}
    claims, by_paper = [row.claim for row in rows], {}
    for prefix, name in PAPERS.items():
        by_paper[name] = counts([row for row in rows if row.id.startswith(prefix)])
    total = counts(rows)
    environment = jinja2.Environment(autoescape=True)
    environment.filters["first_part"] = first_part
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        rows=rows,
        others=others,
        words=[*VERDICTS, *([MISSING] if total[MISSING] else [])],
        counts=by_paper | {"Both papers": total},
        agreement={run: compare(claims, table) for run, table in others.items()},
        stands_on={row.id: stands_on(row.claim, others) for row in rows},
        differing={row.id: differing(row.claim, others) for row in rows},
        papers=PAPERS,
        inventory=INVENTORY,
        sample_size=sample_size,
    )


class scorecard_node(nodes.General, nodes.Element):
    """Placeholder for the table, which is made once all chapters have been executed."""


class ScorecardDirective(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [scorecard_node()]


def rows_of(app: Sphinx) -> list[Row]:
    """The scorecard of the chapters that this build executed or had in its cache."""
    book = Path(app.srcdir)
    # The same default as myst_nb's.
    cache = app.config.nb_execution_cache_path or Path(app.outdir).parent / ".jupyter_cache"
    return scorecard(executed(get_cache(cache), notebooks(book.parent), book))


def other_runs(app: Sphinx) -> dict[str, dict[str, dict[str, str]]]:
    """Scorecards of other runs, by model and seed."""
    others = {}
    for path in sorted(Path(app.srcdir, OTHER_RUNS).glob("*.csv")):
        others[path.stem] = read_csv(path.read_text(encoding="utf-8"))
    return others


def fill_in(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the placeholder; a missing result is a warning, and ``-W`` fails the build."""
    for node in list(doctree.findall(scorecard_node)):
        rows = rows_of(app)
        for row in rows:
            if row.claim is None:
                text = "no chapter has recorded %s: its closing table must hold it."
                logger.warning(text, row.id, location=docname)
        node.replace_self(nodes.raw("", as_html(rows, other_runs(app)), format="html"))


def write_csv(app: Sphinx, exception: Exception | None) -> None:
    """Write ``scorecard.csv`` at the root of the site."""
    if exception is None and app.builder.format == "html":
        Path(app.outdir, "scorecard.csv").write_text(as_csv(rows_of(app)), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(scorecard_node)
    app.add_directive("scorecard", ScorecardDirective)
    app.connect("doctree-resolved", fill_in)
    app.connect("build-finished", write_csv)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
