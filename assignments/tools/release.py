"""``python -m assignments.tools.release``: the student versions, into ``_build/assignments``.

The student version of a set is a folder with its notebook and ``checks.py``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from assignments.tools.course import make_course, released
from assignments.tools.publish import publish
from assignments.tools.sources import ROOT, SOURCE, set_names


def release(out: Path, source: Path = SOURCE) -> list[Path]:
    """Write the student version of every set into an emptied folder, and return the notebooks."""
    shutil.rmtree(out, ignore_errors=True)
    notebooks = []
    with TemporaryDirectory(prefix="release-") as course:
        for name in set_names(source):
            make_course(Path(course), name, source)
            shutil.copytree(released(Path(course), name).parent, out / name)
            notebooks.append(out / name / f"{name}.ipynb")
    return notebooks


if __name__ == "__main__":
    folder = ROOT / "_build" / "assignments"
    for notebook in release(folder):
        print(f"student version: {notebook.parent}")
    if page := publish(folder, ROOT / "_build" / "html"):
        print(f"linked from {page}")
