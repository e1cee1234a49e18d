"""Every package is pinned, the pins agree with each other and with what is installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.repository.tree import HELPERS, ROOT, relative

pytestmark = pytest.mark.unit

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
LINES = [*PROJECT["project"]["dependencies"], *sum(EXTRAS.values(), [])]
DIRECT = [Requirement(line) for line in LINES]
# A CUDA build of torch pins the CUDA packages itself.
CUDA = re.compile(r"nvidia|triton|cuda")


def pinned() -> dict[str, str]:
    """The pins of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def test_direct_dependencies_are_pinned_as_in_constraints() -> None:
    pins = pinned()
    for requirement in DIRECT:
        pin = pins[canonicalize_name(requirement.name)]
        assert str(requirement.specifier) == f"=={pin}", requirement


def test_the_build_tool_is_pinned() -> None:
    for line in PROJECT["build-system"]["requires"]:
        assert re.fullmatch(r"[\w-]+==[\d.]+", line)


def test_constraints_choose_no_build_of_torch() -> None:
    """A local version or a CUDA package would bind the book to one kind of machine."""
    assert not [name for name, version in pinned().items() if "+" in version or CUDA.search(name)]


def test_conda_gets_the_same_set() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["--constraint constraints.txt", "--editable .[test]"]}
    (python,) = [entry for entry in conda if entry.startswith("python=")]
    version = Version(python.removeprefix("python="))
    assert version in SpecifierSet(PROJECT["project"]["requires-python"])


def needed_by(package: metadata.Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    """What an installed package requires on this machine, with some of its extras."""
    for line in package.requires or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement


def test_what_is_installed_is_what_is_pinned_and_nothing_is_missing() -> None:
    """Follows the requirements through everything installed, as pip does."""
    pins, seen, wrong = pinned(), set(), []
    # `make live` alone installs its extra.
    waiting = [requirement for requirement in DIRECT if str(requirement) not in EXTRAS["live"]]
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or CUDA.search(name):
            continue
        seen.add((name, extras))
        package = metadata.distribution(name)
        if Version(package.version).public != pins.get(name):
            wrong.append(f"{name}: installed {package.version}, pinned {pins.get(name)}")
        waiting += needed_by(package, extras)
    assert not wrong
    assert len(seen) > len(DIRECT)


def imported(source: str) -> Iterator[str]:
    """The top-level packages that a module imports by their full names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_what_helpers_import_is_a_direct_dependency() -> None:
    distributions = metadata.packages_distributions()
    direct = {canonicalize_name(requirement.name) for requirement in DIRECT}
    missing = []
    for path in HELPERS:
        for name in imported(path.read_text(encoding="utf-8")):
            owners = {canonicalize_name(owner) for owner in distributions.get(name, [])}
            if owners and not owners & (direct | {"steering-book"}):
                missing.append(f"{relative(path)} imports {name}, of {', '.join(sorted(owners))}")
    assert not missing


GROUP = """
import os, pytest

@pytest.mark.xdist_group("one process")
@pytest.mark.parametrize("number", range(4))
def test_where(number):
    with open("processes", "a") as file:
        file.write(f"{os.getpid()}\\n")
"""


@pytest.mark.slow
def test_tests_of_a_group_run_in_one_process(tmp_path: Path) -> None:
    """What make test relies on; some versions of pytest and pytest-xdist do not do it together."""
    (tmp_path / "test_group.py").write_text(GROUP, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-p", "no:nbmake"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    processes = (tmp_path / "processes").read_text(encoding="utf-8").splitlines()
    assert len(processes) == 4 and len(set(processes)) == 1
