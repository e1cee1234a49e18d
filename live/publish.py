"""``python -m live.publish``: link the page that runs the model with the built site."""

from __future__ import annotations

import re
from pathlib import Path

LINK = re.compile(r'(<div id="live-link">).*?(</div>)', re.DOTALL)
OPEN = '<p><a class="reference external" href="live/index.html">Open the page</a></p>'


def publish(site: Path) -> Path | None:
    """Link both ways; the site's page about it, or None if either is not there."""
    about, page = site / "live.html", site / "live" / "index.html"
    if not about.is_file() or not page.is_file():
        return None
    html = LINK.sub(lambda match: match[1] + OPEN + match[2], about.read_text(encoding="utf-8"))
    about.write_text(html, encoding="utf-8")
    html = page.read_text(encoding="utf-8").replace('<a id="home" hidden ', '<a id="home" ')
    page.write_text(html, encoding="utf-8")
    return about


if __name__ == "__main__":
    publish(Path(__file__).parents[1] / "_build" / "html")
