"""``python -m assignments.tools.release``: the student versions, into ``_build/assignments``.

The student version of a set is a folder with its notebook and ``checks.py``.
"""

from __future__ import annotations

import argparse
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
    for name in set_names(source):
        with TemporaryDirectory(prefix="release-") as course:
            make_course(Path(course), name, source, gradebook=False)
            shutil.copytree(released(Path(course), name).parent, out / name)
        notebooks.append(out / name / f"{name}.ipynb")
    return notebooks


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m assignments.tools.release", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "assignments")
    out = parser.parse_args().out.resolve()
    for path in release(out):
        print(f"student version: {path.parent}")
    if page := publish(out, ROOT / "_build" / "html"):
        print(f"linked from {page}")


if __name__ == "__main__":
    main()
