"""``python -m live.publish``: link the page that runs the model from the built site."""

from __future__ import annotations

import re
from pathlib import Path

LINK = re.compile(r'(<div id="live-link">).*?(</div>)', re.DOTALL)
OPEN = '<p><a class="reference external" href="live/index.html">Open the page</a></p>'


def publish(site: Path) -> Path | None:
    """Put the link onto the site's page about it; that page, or None if either is not there."""
    page = site / "live.html"
    if not page.is_file() or not (site / "live" / "index.html").is_file():
        return None
    html = LINK.sub(lambda match: match[1] + OPEN + match[2], page.read_text(encoding="utf-8"))
    page.write_text(html, encoding="utf-8")
    return page


if __name__ == "__main__":
    publish(Path(__file__).parents[1] / "_build" / "html")
