"""How a submission's kernel is started."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from assignments.tools import jail
from helpers.settings import SETTINGS


@dataclass
class Run:
    """How submissions are run, and what happened in the current one.

    Attributes:
        cell_seconds: after which a cell is interrupted.
        total_seconds: after which no further cell runs.
        course: the grader's folder; its files are restored if student code changes them.
        memory_bytes: limit of a kernel.
        user: account that kernels run as; empty for the account that grades.
        hidden: folders that a kernel must not read.
        events: what happened, in words.
    """

    cell_seconds: float = 60
    total_seconds: float = 600
    course: Path | None = None
    memory_bytes: int = 6 * 2**30
    user: str = ""
    hidden: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def policy(self, scratch: str) -> dict:
        """What ``jail.py`` is told about a kernel."""
        return {
            "scratch": scratch,
            "user": self.user,
            "memory_bytes": self.memory_bytes,
            "file_bytes": 2**28,
            "hidden": self.hidden,
        }


class JailSpec(KernelSpecManager):
    """A kernel of this Python, started through ``jail.py``."""

    policy: dict = {}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-P", jail.__file__, json.dumps(self.policy)]
        argv += ["-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="graded", language="python")


def environment(scratch: str, handout: str) -> dict[str, str]:
    """Environment variables of a kernel: few of the grader's, and no way out of its folders."""
    kept = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS")
    path = filter(None, [handout, os.environ.get("PYTHONPATH")])
    folders = ("HOME", "TMPDIR", "XDG_CACHE_HOME")
    folders += ("IPYTHONDIR", "MPLCONFIGDIR", "JUPYTER_RUNTIME_DIR")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **dict.fromkeys(folders, scratch),
        "PYTHONPATH": os.pathsep.join(path),
        "BOOK_CACHE": str(SETTINGS.cache),
        "BOOK_PROGRESS": "off",
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "passive",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
