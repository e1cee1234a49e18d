"""``python -m assignments.tools.release``: the student versions, into ``_build/assignments``.

The student version of a set is a folder with its notebook and ``checks.py``. nbgrader makes it, so
that it also works with nbgrader's own exchange and formgrader.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

from assignments.tools.publish import publish
from assignments.tools.sources import CHECKS, ROOT, SOURCE, read_set, secret_lines, set_names

try:
    from nbgrader.apps import NbGraderAPI
    from sqlalchemy.exc import SAWarning
    from traitlets.config import Config
except ImportError:
    sys.exit(
        "nbgrader is not installed: python -m pip install -c constraints.txt -e '.[grading]' "
        "(students do not need it)"
    )

# nbgrader runs the program alembic by name.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])

warnings.filterwarnings("ignore", category=SAWarning)  # from nbgrader's own queries


def student_version(course: Path, name: str, source: Path = SOURCE) -> Path:
    """Make the student version of a set in an nbgrader course folder, and return its notebook.

    Raises:
        RuntimeError: nbgrader refuses the source, or a secret line is left in the student version.
    """
    shutil.copytree(source / name, course / "source" / name)
    shutil.copy(CHECKS, course / "source" / name)
    settings = Config()
    settings.CourseDirectory.root = str(course)
    settings.CourseDirectory.db_url = f"sqlite:///{course / 'gradebook.db'}"
    result = NbGraderAPI(config=settings).generate_assignment(name)
    if not result["success"]:
        log = f"{result.get('log', '')}\n{result['error']}"
        raise RuntimeError(f"nbgrader could not make the student version of {name}: {log}")

    # Check that no line of a solution or hidden test is left.
    path, lines = course / "release" / name / f"{name}.ipynb", set()
    for cell in nbformat.read(path, as_version=4).cells:
        lines.update(line.strip() for line in cell.source.splitlines())
    if left := sorted(secret_lines(read_set(name, source)) & lines):
        raise RuntimeError(f"the student version of {name} would show {left[0]!r}")
    return path


def release(out: Path, source: Path = SOURCE) -> list[Path]:
    """Write the student version of every set into an emptied folder, and return the notebooks."""
    shutil.rmtree(out, ignore_errors=True)
    notebooks = []
    with TemporaryDirectory(prefix="release-") as course:
        for name in set_names(source):
            shutil.copytree(student_version(Path(course), name, source).parent, out / name)
            notebooks.append(out / name / f"{name}.ipynb")
    return notebooks


if __name__ == "__main__":
    folder = ROOT / "_build" / "assignments"
    for notebook in release(folder):
        print(f"student version: {notebook.parent}")
    if page := publish(folder, ROOT / "_build" / "html"):
        print(f"linked from {page}")
