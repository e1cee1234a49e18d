"""The installation passes pip's configuration on to uv, and falls back on pip."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from book._ext import install

pytestmark = pytest.mark.unit

BEST = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
MIRROR = "https://mirror.test/simple"
# A Python that notes its arguments; its uv works with the index of pip's configuration alone.
STUB = f"""#!/bin/sh
echo "$@" >> {{log}}
case "$*" in
  *"config list"*) echo "global.index-url='{MIRROR}'" ;;
  *"{{fails}}"*) exit 3 ;;
  *"uv pip"*) [ "$UV_DEFAULT_INDEX" = "{MIRROR}" ] ;;
esac
"""


def stub(folder: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> tuple[Path, Path]:
    """The stub in place of Python, failing at some calls; it and the file of its arguments."""
    python, log = folder / "python", folder / "log"
    python.write_text(STUB.format(log=log, fails=fails), encoding="utf-8")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(install.sys, "executable", str(python))
    monkeypatch.setattr(install, "PIP", [str(python), "-m", "pip"])
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    return python, log


def test_options_of_pip_become_variables_of_uv() -> None:
    configuration = """global.index-url='https://one.test/simple'
global.extra-index-url='\\nfile:///a/simple\\nfile:///b/simple'
install.index-url='https://two.test/simple'
:env:.find-links='/wheels /more'
global.find-links='/other'
freeze.timeout='10'
global.no-such-option='x'"""
    assert install.uv_variables(configuration) == BEST | {
        "UV_DEFAULT_INDEX": "https://two.test/simple",
        "UV_INDEX": "file:///a/simple file:///b/simple",
        "UV_FIND_LINKS": "/wheels,/more",
    }
    assert install.uv_variables("") == BEST


@pytest.mark.parametrize(
    "fails, done",
    [
        ("no such call", ["install uv", "config", "uv", "check"]),
        ("--only-binary", ["install uv", "install book", "check"]),
        ("uv pip", ["install uv", "config", "uv", "install book", "check"]),
    ],
)
def test_what_uv_cannot_do_pip_does(
    fails: str, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, log = stub(tmp_path, monkeypatch, fails)
    assert install.main(".[test]") == 0
    commands = {
        "install uv": "-m pip install --quiet --only-binary=:all: -c constraints.txt uv",
        "config": "-m pip config list",
        "uv": f"-m uv pip install --quiet --python {python} -c constraints.txt -e .[test]",
        "install book": "-m pip install --quiet --no-compile -c constraints.txt -e .[test]",
        "check": "-m pip check",
    }
    assert log.read_text(encoding="utf-8").splitlines() == [commands[name] for name in done]


def test_an_installation_that_fails_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path, monkeypatch, "install")
    assert install.main(".[test]") == 3
