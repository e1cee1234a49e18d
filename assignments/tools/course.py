"""nbgrader, set up for these sets: a course folder with its settings, and the student version of a set."""

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
        "nbgrader is not installed: python -m pip install -c constraints.txt -e '.[grading]' (students do not need it)"
    )

# nbgrader runs the program alembic, by name.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])

warnings.filterwarnings("ignore", category=SAWarning)  # nbgrader's own

# For nbgrader's own commands and its formgrader, which a teacher starts in the course folder: without it they would write
# feedback with the hidden tests in it.
CONFIG = """import sys
from pathlib import Path

sys.path.insert(0, {root!r})
from assignments.tools.course import course_settings

c = get_config()
c.GenerateFeedback.preprocessors = course_settings(Path(__file__).parent).GenerateFeedback.preprocessors
"""


def course_settings(course: Path, **more: dict) -> Config:
    """nbgrader's settings for a course folder."""
    from assignments.tools.execute import GradedExecute
    from assignments.tools.feedback import HideTests

    settings = Config()
    settings.CourseDirectory.root = str(course)
    settings.CourseDirectory.db_url = f"sqlite:///{course / 'gradebook.db'}"
    settings.CourseDirectory.course_id = "steering-book"
    settings.GenerateFeedback.preprocessors = [
        "nbgrader.preprocessors.GetGrades",
        HideTests,
        "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
    ]
    steps = [
        "IgnorePattern",
        "LimitOutput",
        "SaveAutoGrades",
        "AssignLatePenalties",
        "CheckCellMetadata",
    ]
    settings.Autograde.autograde_preprocessors = [
        GradedExecute,
        *(f"nbgrader.preprocessors.{step}" for step in steps),
    ]
    for name, values in more.items():
        settings[name].update(values)
    return settings


def make_course(course: Path, name: str, source: Path = SOURCE) -> NbGraderAPI:
    """A course folder with one set in it: its source, its student version in ``release/``, and a gradebook that knows its points.

    Raises:
        RuntimeError: nbgrader refuses the source, or a secret line is left in the student version.
    """
    course.mkdir(parents=True, exist_ok=True)
    course.chmod(0o700)  # hidden tests lie here
    shutil.rmtree(course / "source", ignore_errors=True)
    shutil.copytree(source / name, course / "source" / name)
    shutil.copy(CHECKS, course / "source" / name)
    (course / "nbgrader_config.py").write_text(CONFIG.format(root=str(ROOT)), encoding="utf-8")
    api = NbGraderAPI(config=course_settings(course))
    result = api.generate_assignment(name)
    if not result["success"]:
        raise RuntimeError(
            f"nbgrader could not make {name}: {result.get('log', '')}\n{result['error']}"
        )
    text = released(course, name).read_text(encoding="utf-8")
    lines = {
        line.strip()
        for cell in nbformat.reads(text, as_version=4).cells
        for line in cell.source.splitlines()
    }
    if left := secret_lines(read_set(name, source)) & lines:
        raise RuntimeError(f"the student version of {name} would show {sorted(left)[0]!r}")
    return api


def released(course: Path, name: str) -> Path:
    """The student version in a course folder."""
    return course / "release" / name / f"{name}.ipynb"
