"""Install the pinned packages into an environment: a script that needs nothing but Python and pip.

uv does it several times faster than pip, but does not read pip's configuration, which may name
another package index: that is passed on. Where uv cannot be had or fails, pip does the work.

    .venv/bin/python book/_ext/install.py '.[test]'
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping

PIP = [sys.executable, "-m", "pip"]
PINS = ["-c", "constraints.txt"]
# Options of pip -> variables of uv, and what separates several values there.
TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "no-index": ("UV_NO_INDEX", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
}


def uv_variables(configuration: str) -> dict[str, str]:
    """pip's configuration, as ``pip config list`` prints it, as environment variables of uv.

    A later line of one option wins, but a variable of the environment over any file and
    ``install`` over ``global``, as in pip.
    """
    found: dict[str, tuple[int, str]] = {}
    for line in configuration.splitlines():
        place, _, value = line.partition("=")
        section, _, option = place.rpartition(".")
        rank = {"global": 0, "install": 1, ":env:": 2}.get(section)
        if rank is None or option not in TO_UV:
            continue
        name, separator = TO_UV[option]
        if rank >= found.get(name, (0, ""))[0]:
            found[name] = rank, separator.join(ast.literal_eval(value).split())
    # pip takes the best version of all indices, uv that of the first one which has the package.
    return {name: value for name, (_, value) in found.items()} | {
        "UV_INDEX_STRATEGY": "unsafe-best-match"
    }


def with_uv(requirement: str, environment: Mapping[str, str]) -> bool:
    """Whether uv could be had and has installed everything."""
    # Without a wheel for this machine, pip would begin to compile uv.
    first = [*PIP, "install", "--quiet", "--only-binary=:all:", *PINS, "uv"]
    if subprocess.run(first, stderr=subprocess.DEVNULL).returncode:
        return False
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=True)
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    # Variables of uv that are set already are the user's own choice.
    variables = uv_variables(listed.stdout) | environment
    return not subprocess.run([*command, *PINS, "-e", requirement], env=variables).returncode


def main(requirement: str) -> int:
    """Install, and check that all that is installed fits together."""
    if not with_uv(requirement, os.environ):
        print("Installing with pip instead of uv, which takes longer ...", flush=True)
        how = ["install", "--quiet", "--no-compile", *PINS, "-e", requirement]
        if code := subprocess.run([*PIP, *how]).returncode:
            return code
    return subprocess.run([*PIP, "check"]).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
