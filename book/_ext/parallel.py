"""Let Sphinx read pages in several processes: a Sphinx extension.

It does so only if every extension declares itself safe for that. The one that numbers chapters
does its work when all pages have been read, but declares nothing.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

SAFE = "sphinx_multitoc_numbering"


def declare(app: Sphinx, config: Config) -> None:
    if SAFE in app.extensions:
        app.extensions[SAFE].parallel_read_safe = True


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", declare)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
