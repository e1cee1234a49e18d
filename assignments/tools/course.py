"""nbgrader's course folder for one set: settings, source, student version, gradebook."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import warnings
from pathlib import Path

import nbformat

from assignments.tools.sources import CHECKS, ROOT, SOURCE, read_set, secret_lines

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

# For nbgrader's commands and its formgrader, which a teacher starts in the course folder: their
# default feedback would show the hidden tests.
CONFIG = """import sys
from pathlib import Path

sys.path.insert(0, {root!r})
from assignments.tools.course import course_settings

settings = course_settings(Path(__file__).parent)
c = get_config()
c.GenerateFeedback.preprocessors = settings.GenerateFeedback.preprocessors
"""


def course_settings(course: Path) -> Config:
    """nbgrader's settings for a course folder."""
    from assignments.tools.execute import GradedExecute
    from assignments.tools.feedback import HideTests

    settings = Config()
    settings.CourseDirectory.root = str(course)
    settings.CourseDirectory.db_url = f"sqlite:///{course / 'gradebook.db'}"
    settings.CourseDirectory.course_id = "steering-book"
    # Feedback without hidden tests.
    settings.GenerateFeedback.preprocessors = [
        "nbgrader.preprocessors.GetGrades",
        HideTests,
        "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
    ]
    # Execution that survives any code; the other steps are nbgrader's defaults.
    settings.Autograde.autograde_preprocessors = [
        GradedExecute,
        "nbgrader.preprocessors.IgnorePattern",
        "nbgrader.preprocessors.LimitOutput",
        "nbgrader.preprocessors.SaveAutoGrades",
        "nbgrader.preprocessors.AssignLatePenalties",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    return settings


def make_course(course: Path, name: str, source: Path = SOURCE) -> NbGraderAPI:
    """Make a course folder with one set: its source, student version and gradebook.

    Raises:
        RuntimeError: nbgrader refuses the source, or a secret line is left in the student version.
    """
    course.mkdir(parents=True, exist_ok=True)
    course.chmod(0o700)  # hidden tests are in here
    shutil.rmtree(course / "source", ignore_errors=True)
    shutil.copytree(source / name, course / "source" / name)
    shutil.copy(CHECKS, course / "source" / name)
    (course / "nbgrader_config.py").write_text(CONFIG.format(root=str(ROOT)), encoding="utf-8")

    # Strip solutions and hidden tests.
    api = NbGraderAPI(config=course_settings(course))
    result = api.generate_assignment(name)
    if not result["success"]:
        log = f"{result.get('log', '')}\n{result['error']}"
        raise RuntimeError(f"nbgrader could not make the student version of {name}: {log}")

    # Check that no line of them is left.
    lines = set()
    for cell in nbformat.read(released(course, name), as_version=4).cells:
        lines.update(line.strip() for line in cell.source.splitlines())
    if left := sorted(secret_lines(read_set(name, source)) & lines):
        raise RuntimeError(f"the student version of {name} would show {left[0]!r}")
    return api


def released(course: Path, name: str) -> Path:
    """The student version in a course folder."""
    return course / "release" / name / f"{name}.ipynb"
