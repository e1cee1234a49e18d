"""The Makefile passes its variables on as they were typed, and its errors take one line."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(not shutil.which("make"), reason="make is not installed"),
]

ROOT = Path(__file__).parents[2]
AWKWARD = r"""it's "x" `id` $HOME $(PY) \n ; #1"""
PROGRAMS = ("helpers/models/packed", "assignments/tools/grade", "jupyterlab")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The Makefile beside programs that print their arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in PROGRAMS:
        program = tmp_path / f"{name}.py"
        program.parent.mkdir(parents=True, exist_ok=True)
        source = "import json, sys\nif sys.argv[1:]: print(json.dumps(sys.argv[1:]))\n"
        program.write_text(source, encoding="utf-8")
        # Regular packages, so that no installed one comes before them.
        for folder in program.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / "__init__.py").touch()
    return tmp_path


def make(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    # As typed in a shell: under `make test` a nested make would add the folders that it enters.
    shell = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", f"PY={sys.executable}", *command],
        cwd=project,
        env=shell | environment,
        capture_output=True,
        text=True,
    )


def test_a_folder_reaches_the_program_as_it_was_typed(project: Path) -> None:
    for done in (
        make(project, "grade", f"SUBMISSIONS={AWKWARD}"),
        make(project, "grade", SUBMISSIONS=AWKWARD),
    ):
        assert json.loads(done.stdout) == [AWKWARD], done.stderr
    assert "make grade SUBMISSIONS=folder" in make(project, "grade").stderr


def test_what_is_missing_is_named(project: Path) -> None:
    """Chapters without which ``make fits`` has nothing to do; the environment of ``make serve``."""
    done = make(project, "fits")
    assert done.returncode == 2 and "Name them: make fits CHAPTERS=" in done.stderr
    (project / "_build/html").mkdir(parents=True)
    (project / "_build/html/index.html").touch()
    done = make(project, "serve", "PY=no-such-python")
    assert done.returncode == 2 and "There is no no-such-python." in done.stderr


def test_further_options_are_split_into_words_and_not_expanded(project: Path) -> None:
    flags = """--token='$HOME `id`' -m "not site" $(PY)"""
    contents = "--ServerApp.contents_manager_class=book._ext.lab.BookContents"
    expected = ["book", contents, "--token=$HOME `id`", "-m", "not site", "$(PY)"]
    for done in (make(project, "lab", f"LAB_FLAGS={flags}"), make(project, "lab", LAB_FLAGS=flags)):
        assert json.loads(done.stdout) == expected, done.stderr


def test_a_port_in_use_is_said_in_one_line(project: Path) -> None:
    (project / "_build/html").mkdir(parents=True)
    (project / "_build/html/index.html").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = make(project, "serve", f"PORT={port}")
    message, *rest = done.stderr.strip().splitlines()
    assert done.returncode == 2 and f"Port {port} cannot be used" in message
    assert len(rest) == 1 and rest[0].startswith("make: ***")
