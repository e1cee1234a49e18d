"""The import contract in pyproject.toml is kept, and would be seen to be broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
FLOORS = "A room imports from the floors below it only"
INSIDE = "The package imports neither the book nor what is built around it"
CIRCLES = "No two modules of a room import each other, directly or through others"


def lint(root: Path) -> tuple[int, str]:
    """Exit status and report of import-linter on the package in a folder."""
    command = [sys.executable, "-c", LINT, "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copied")
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(
        ROOT / "helpers", root / "helpers", ignore=shutil.ignore_patterns("__pycache__")
    )
    return root


def test_the_import_contract_is_kept() -> None:
    status, report = lint(ROOT)
    assert status == 0, report
    for contract in (FLOORS, INSIDE, CIRCLES):
        assert f"{contract} KEPT" in report


@pytest.mark.parametrize(
    ("planted", "broken"),
    [
        ({"models/planted.py": "from helpers.results import intervals\n"}, FLOORS),
        ({"prompts/planted.py": "def late():\n    import helpers.runs.sweep\n"}, FLOORS),
        (
            {"observable_propagation/planted.py": "import helpers.activation_scaling.points\n"},
            FLOORS,
        ),
        ({"cellar/__init__.py": ""}, FLOORS),
        ({"results/planted.py": "from tests.conftest import random_model\n"}, INSIDE),
        (
            {"figures/one.py": "from . import two\n", "figures/two.py": "from . import one\n"},
            CIRCLES,
        ),
    ],
)
@pytest.mark.slow
def test_a_broken_contract_is_reported(copied: Path, planted: dict[str, str], broken: str) -> None:
    for name, source in planted.items():
        path = copied / "helpers" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
    try:
        status, report = lint(copied)
    finally:
        for name in planted:
            (copied / "helpers" / name).unlink()
        shutil.rmtree(copied / "helpers" / "cellar", ignore_errors=True)
    assert status == 1 and f"{broken} BROKEN" in report, report
