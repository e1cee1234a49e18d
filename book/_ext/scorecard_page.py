"""A Sphinx extension: the directive ``scorecard``, and the file ``scorecard.csv`` beside the site's first page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from book._ext.build import notebooks
from book._ext.scorecard import Row, as_csv, as_html, executed, read_csv, scorecard

logger = logging.getLogger(__name__)
FOLDER = "scorecards"  # in the book's folder: the scorecards of other runs, one CSV file each, named after the model and the seed


class scorecard_node(nodes.General, nodes.Element):
    """Stands where the table will be: only when all chapters have been executed is there something to show."""


class ScorecardDirective(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [scorecard_node()]


def rows_of(app: Sphinx) -> list[Row]:
    """What the executed chapters recorded."""
    book = Path(app.srcdir)
    cache = (
        app.config.nb_execution_cache_path or Path(app.outdir).parent / ".jupyter_cache"
    )  # as myst_nb finds it
    return scorecard(executed(get_cache(cache), notebooks(book.parent), book))


def fill_in(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the table in its place; a result without a record is warned of, which makes the build fail."""
    for node in list(doctree.findall(scorecard_node)):
        rows = rows_of(app)
        for row in rows:
            if row.claim is None:
                logger.warning(
                    "no chapter has recorded %s: its closing table must hold it.",
                    row.id,
                    location=docname,
                )
        others = {
            path.stem: read_csv(path.read_text(encoding="utf-8"))
            for path in sorted(Path(app.srcdir, FOLDER).glob("*.csv"))
        }
        node.replace_self(nodes.raw("", as_html(rows, others), format="html"))


def write_csv(app: Sphinx, exception: Exception | None) -> None:
    """The same for programs, at the root of the site."""
    if exception is None and app.builder.format == "html":
        Path(app.outdir, "scorecard.csv").write_text(as_csv(rows_of(app)), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(scorecard_node)
    app.add_directive("scorecard", ScorecardDirective)
    app.connect("doctree-resolved", fill_in)
    app.connect("build-finished", write_csv)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
