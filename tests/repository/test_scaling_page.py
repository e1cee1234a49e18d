"""The page on scaling up: its commands are accepted by what they call, and its Python runs as far as this machine goes."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from distributed.cli import dask_scheduler, dask_worker

from helpers.activation_scaling import grid
from helpers.runs import workers as cluster
from helpers.settings import Settings

pytestmark = pytest.mark.unit
PAGE = (Path(__file__).parents[2] / "book" / "scaling.md").read_text(encoding="utf-8")
BASH = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line
    for block in BASH
    for line in re.split(r"\n(?!  )|[;&]+|\bdo\b", block.replace("\\\n", " "))
]


def arguments(program: str) -> list[list[str]]:
    """What follows a program on the page, each time that it is called."""
    found = [
        shlex.split(line.partition(program)[2], comments=True)
        for line in COMMANDS
        if program in line
    ]
    assert found, program
    return found


@pytest.mark.parametrize("block", BASH)
def test_the_shell_can_read_every_block(block):
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_dask_takes_the_options_of_its_commands():
    for command, program in (
        (dask_scheduler.main, "dask scheduler"),
        (dask_worker.main, "dask worker"),
    ):
        for given in arguments(program):
            context = command.make_context(program, list(given))
            assert program != "dask worker" or context.params["nthreads"] == 1, (
                "a worker of the book has one thread"
            )


def test_the_grid_takes_the_options_of_its_commands(monkeypatch):
    class Started(Exception):
        pass

    def started():
        raise Started

    monkeypatch.setattr(grid, "connect", started)
    for given in arguments("python -m helpers.activation_scaling.grid"):
        with pytest.raises(Started):
            grid.main(given)


def test_every_setting_on_the_page_is_one():
    variables = re.findall(r"\b(BOOK_[A-Z]+)=([\w:/.-]+)", "\n".join(COMMANDS))
    assert {name for name, _ in variables} >= {"BOOK_SCHEDULER", "BOOK_DEVICE"}
    for name, value in variables:
        assert (
            getattr(Settings.from_environment({name: value}), name.removeprefix("BOOK_").lower())
            == value
        )


def test_every_python_block_can_be_read_and_imports_what_there_is():
    for block in PYTHON:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in (
                "helpers",
                "transformers",
                "transformer_lens",
            ):
                module = __import__(node.module, fromlist=[name.name for name in node.names])
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


def test_what_the_page_says_of_sizes_is_what_the_code_has():
    assert "more than a megabyte" in PAGE and cluster.LIMIT == 1 << 20
