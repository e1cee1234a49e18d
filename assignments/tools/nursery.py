"""A nursery: a process that has loaded everything and forks a sandbox for each student.

Its program is ``inside/serve.py``, run from a copy of what student code may see.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from assignments.inside import wire
from assignments.tools.records import SandboxError
from assignments.tools.session import Session
from assignments.tools.sources import ROOT, hand_out_checks
from helpers.settings import SETTINGS

START_SECONDS = 300  # until a nursery has loaded the model, on a busy machine
NO_NAMESPACES = (
    "this system allows no namespaces of its own. In a container, allow them (docker run "
    "--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined). "
    "With --allow-weak-sandbox student code runs with limits only and can read what you can read"
)
STARTER = """
import socket
from inside.serve import main
main(socket.socket(fileno={descriptor}), {policy})
"""


@dataclass(frozen=True)
class Limits:
    """Limits of one student's code: memory in bytes, of all its processes together."""

    memory_bytes: int = 4 * 2**30
    file_bytes: int = 2**28
    isolation: str = "best"  # "weak": also without namespaces; "limits": always without


@dataclass
class Nursery:
    """A process that forks sandboxes.

    Attributes:
        apart: whether the last sandbox has namespaces of its own.
        held: what holds it, in words.
    """

    limits: Limits = field(default_factory=Limits)
    apart: bool = False
    held: str = ""
    slot: int = 0

    def start(self) -> None:
        """Load the package and the model.

        Raises:
            SandboxError: that fails; the message has the last lines of the error.
        """
        self.folder = tempfile.TemporaryDirectory(prefix="handout-", ignore_cleanup_errors=True)
        place = Path(self.folder.name)
        place.chmod(0o755)
        # Copies, so that the sandbox need not see the repository.
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "helpers", place / "helpers", ignore=ignore)
        shutil.copytree(ROOT / "assignments" / "inside", place / "inside", ignore=ignore)
        hand_out_checks(place)
        readable = [sys.prefix, sys.base_prefix, str(SETTINGS.cache), str(place)]
        policy = {
            "memory_bytes": self.limits.memory_bytes,
            "file_bytes": self.limits.file_bytes,
            "isolation": self.limits.isolation,
            "modules": _modules(),
            "readable": [path for path in dict.fromkeys(readable) if path not in ("/", "/usr")],
        }
        self.control, theirs = socket.socketpair()
        self.errors = (place.parent / f"{place.name}.log").open("w+b")
        # The program comes through standard input: nothing of it shows in the command line.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            cwd=place,
            env=_environment(place),
            pass_fds=[theirs.fileno()],
        )
        self.process.stdin.write(
            STARTER.format(descriptor=theirs.fileno(), policy=policy).encode("utf-8")
        )
        self.process.stdin.close()
        theirs.close()
        self.control.settimeout(START_SECONDS)
        try:
            ready = self.control.recv(5) == b"ready"
        except OSError:
            ready = False
        if not ready:
            self.errors.seek(0)
            last = self.errors.read().decode("utf-8", "replace").strip().splitlines()[-3:]
            self.stop()
            raise SandboxError("student code cannot be run here: " + " ".join(last))
        # They are loaded. As files they would give a part's answer to a Python of the student's.
        for name in _modules():
            if name.startswith("helpers."):
                place.joinpath(*name.split(".")).with_suffix(".py").unlink()

    def build(self, models: Iterable[tuple]) -> None:
        """Build models of ``checks``, by their keys there, so that no sandbox has to.

        Raises:
            SandboxError: that takes too long, or the process has ended.
        """
        try:
            self.control.sendall(json.dumps({"models": list(models)}).encode())
            built = self.control.recv(5) == b"ready"
        except OSError:
            built = False
        if not built:
            raise SandboxError("the models of the checks cannot be built where student code runs")

    def session(self) -> Session:
        """A fresh sandbox.

        Raises:
            SandboxError: it does not start.
        """
        if self.process.poll() is not None:  # somebody ended it
            self.stop()
            self.start()
        self.slot += 1
        ours, theirs = socket.socketpair()
        scratch = tempfile.TemporaryDirectory(prefix="scratch-", ignore_cleanup_errors=True)
        os.chmod(scratch.name, 0o777)
        order = {"slot": os.getpid() * 100 + self.slot, "scratch": scratch.name}
        socket.send_fds(self.control, [json.dumps(order).encode()], [theirs.fileno()])
        theirs.close()
        try:
            answer = json.loads(self.control.recv(4096))
            self.apart = answer["apart"]
            session = Session(ours, answer["worker"], self.limits.memory_bytes, scratch)
            reply = wire.parse(wire.receive(ours, time.monotonic() + START_SECONDS))
        except (OSError, EOFError, ValueError, wire.BrokenMessage) as error:
            raise SandboxError(f"a sandbox did not start: {error}") from error
        problem = reply["error"][-1] if reply.get("error") else ""
        self.held = ", ".join([*(reply.get("value") or ()), "limits"])
        if not self.apart and self.limits.isolation == "best":
            problem = NO_NAMESPACES
        if problem:
            session.end()
            raise SandboxError(f"a sandbox did not start: {problem}")
        return session

    def stop(self) -> None:
        """End the process and all that it started."""
        self.control.close()  # it ends when this is closed
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        self.errors.close()
        Path(self.errors.name).unlink(missing_ok=True)
        self.folder.cleanup()


def _modules() -> list[str]:
    """What most submissions import: loaded once in the nursery instead of once a student."""
    names = ["matplotlib.pyplot", "scipy.stats"]
    for path in sorted((ROOT / "helpers").glob("*/*.py")):
        if path.parent.name not in ("benches", "figures") and path.stem != "__init__":
            names.append(f"helpers.{path.parent.name}.{path.stem}")
    return names


def _environment(handout: Path) -> dict[str, str]:
    kept = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "LD_LIBRARY_PATH")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "OMP_NUM_THREADS": "1",  # forking needs a process without threads
        "PYTHONPATH": str(handout),
        "HOME": str(handout),
        "BOOK_CACHE": str(SETTINGS.cache),
        "BOOK_PROGRESS": "off",
        "BOOK_DEVICE": "cpu",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "Agg",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
    }
