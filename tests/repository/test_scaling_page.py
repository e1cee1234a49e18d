"""The page on scaling up: its commands are accepted by what they call, its Python can be read."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from distributed.cli import dask_scheduler, dask_worker

from helpers.activation_scaling import grid
from helpers.runs import workers
from helpers.settings import Settings

pytestmark = pytest.mark.unit
PAGE = (Path(__file__).parents[2] / "book" / "scaling.md").read_text(encoding="utf-8")
BASH = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = []
for block in BASH:
    COMMANDS += re.split(r"\n(?!  )|[;&]+|\bdo\b", block.replace("\\\n", " "))


def arguments(program: str) -> list[list[str]]:
    """What follows a program on the page, each time that it is called."""
    lines = [line.partition(program)[2] for line in COMMANDS if program in line]
    assert lines, program
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("block", BASH)
def test_the_shell_can_read_every_block(block):
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_dask_accepts_the_options_of_its_commands():
    programs = {"dask scheduler": dask_scheduler.main, "dask worker": dask_worker.main}
    for program, command in programs.items():
        for given in arguments(program):
            context = command.make_context(program, list(given))
            assert context.params.get("nthreads", 1) == 1


def test_the_grid_accepts_the_options_of_its_commands(monkeypatch):
    class Started(Exception):
        pass

    def started():
        raise Started

    monkeypatch.setattr(grid, "connect", started)
    for given in arguments("python -m helpers.activation_scaling.grid"):
        with pytest.raises(Started):
            grid.main(given)


def test_every_setting_on_the_page_is_one():
    text = "\n".join(COMMANDS)
    variables = re.findall(r"\bBOOK_([A-Z]+)=([\w:/.-]+)", text)
    assert {name for name, _ in variables} >= {"SCHEDULER", "DEVICE", "MODEL"}
    for name, value in variables:
        settings = Settings.from_environment({f"BOOK_{name}": value})
        assert getattr(settings, name.lower()) == value


def test_every_python_block_can_be_read_and_imports_what_there_is():
    for block in PYTHON:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and not node.module.startswith("dask_jobqueue"):
                module = __import__(node.module, fromlist=[name.name for name in node.names])
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


def test_what_the_page_says_of_sizes_is_what_the_code_has():
    assert "more than a megabyte" in PAGE and workers.LIMIT == 1 << 20
