"""``python -m assignments.tools.publish``: put the student versions on the built site.

Needs no nbgrader. Only files that ``release`` made are copied, so nothing of the sources can reach
the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from zipfile import ZipFile

import nbformat

from assignments.tools.sources import CHECKS, ROOT

LINKS = re.compile(r'(<div id="assignment-releases">).*?(</div>)', re.DOTALL)


def publish(releases: Path, site: Path) -> Path | None:
    """Put each student version into the site as a zip file, and link it.

    Returns:
        The page with the links; None if there is no site or no release yet.
    """
    page, notebooks = site / "assignments.html", sorted(releases.glob("*/*.ipynb"))
    if not page.is_file() or not notebooks:
        return None
    items = []
    for path in notebooks:
        target = site / "assignments" / f"{path.stem}.zip"
        target.parent.mkdir(exist_ok=True)
        with ZipFile(target, "w") as archive:
            for file in (path, *sorted(path.with_name(CHECKS.name).glob("*.py"))):
                archive.write(file, file.relative_to(releases))
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")
        link = f'<a class="reference external" href="assignments/{target.name}" download>'
        items.append(f"<li>{link}{title}</a></li>")
    html = page.read_text(encoding="utf-8")
    html = LINKS.sub(lambda match: f"{match[1]}<ul>{''.join(items)}</ul>{match[2]}", html)
    page.write_text(html, encoding="utf-8")
    return page


if __name__ == "__main__":
    publish(ROOT / "_build" / "assignments", ROOT / "_build" / "html")
