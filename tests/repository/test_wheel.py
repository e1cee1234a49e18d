"""A wheel built from the repository holds the whole package, and works away from the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.repository.tree import ROOT, TRACKED, relative

pytestmark = pytest.mark.unit

PACKAGE = {relative(path) for path in TRACKED if path.is_relative_to(ROOT / "helpers")}
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
# Imports the package from the folder given and reads its data, the scripts of the figures included.
USE = """
import sys
from importlib.resources import files
from pathlib import Path
import helpers
from helpers.prompts.words import capitals, names
folder, *data = sys.argv[1:]
assert Path(helpers.__file__).is_relative_to(folder), helpers.__file__
assert len(names()) > 100 and len(capitals()) > 100
for name in data:
    assert files("helpers").joinpath(name.removeprefix("helpers/")).read_bytes(), name
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the repository's text, with much that must not get into the wheel."""
    pytest.importorskip("setuptools", reason="the build tool is not installed")
    for path in TRACKED:
        if not path.is_relative_to(ROOT / "book/_assets"):
            copy = tmp_path / "source" / relative(path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    return tmp_path / "source"


def built(source: Path) -> zipfile.ZipFile:
    command = [sys.executable, "-c", BUILD, "dist"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (source / "dist").glob("*.whl")
    return zipfile.ZipFile(wheel)


def contents(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_a_wheel_holds_the_package_and_nothing_else(source: Path, tmp_path: Path) -> None:
    wheel = built(source)
    assert contents(wheel) == PACKAGE
    wheel.extractall(tmp_path / "installed")
    # -P: nothing of the checkout is on the import path.
    data = [name for name in PACKAGE if not name.endswith(".py")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", USE, str(tmp_path / "installed"), *data],
        env={"PYTHONPATH": str(tmp_path / "installed"), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_wheel_without_its_data_would_be_noticed(source: Path) -> None:
    project = source / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    text = text.replace('"helpers.prompts" = ["data/*"]\n', "").replace('"helpers*"', '"helpers"')
    project.write_text(text, encoding="utf-8")
    missing = PACKAGE - contents(built(source))
    assert {"helpers/prompts/data/names.csv", "helpers/models/load.py"} <= missing
