"""Run a submission's cells so that nothing in them can stop the grading: nbgrader's own step, with a kernel that is started again.

A cell that takes too long, or takes the kernel with it, loses its points; the kernel is started again, the cells before it are
run once more without it, and the cells after it run. A check counts as passed only if it ran to its last line.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.client import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute

from assignments.tools import jail
from assignments.tools.sources import CHECKS, Limits, marks

TOKEN = "STEERING_BOOK_GRADING"  # marks every process that a kernel starts
OUTPUT_BYTES = 500_000  # a cell's; what is beyond is dropped
RESTARTS = 5
CODE = CHECKS.read_text(encoding="utf-8")
# Put in front of a check: the functions of checks.py as they were before any student code ran,
# whatever has since become of the module, its file or these names.
FRESH = f"""
import sys as _s
if "checks" in _s.modules:
    _m = vars(_s.modules["checks"])
    exec(compile({CODE!r}, "checks.py", "exec", dont_inherit=True), _m)
    globals().update({{_n: _m[_n] for _n in _m["__all__"]}})
"""


@dataclass
class Run:
    """How submissions are run, and what happened in the one at hand.

    Attributes:
        limits: of the set.
        memory_bytes: of a kernel.
        user: whom the kernel runs as; empty for the user who grades.
        hidden: folders that a kernel shall not read.
        before, after: called around the run of untrusted code.
        events: what happened, in words.
    """

    limits: Limits | None
    memory_bytes: int = 6 * 2**30
    user: str = ""
    hidden: list[str] = field(default_factory=list)
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    events: list[str] = field(default_factory=list)


class JailSpec(KernelSpecManager):
    """One kernel: the jail, in the Python that grades."""

    policy: dict = {}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [
            sys.executable,
            "-P",
            jail.__file__,
            json.dumps(self.policy),
            "-f",
            "{connection_file}",
        ]
        return KernelSpec(argv=argv, display_name="graded", language="python")


class GradedExecute(Execute):
    """nbgrader's Execute for code that is not trusted. ``run`` is set before each submission."""

    run: ClassVar[Run]

    def preprocess(self, nb, resources=None, km=None):
        NotebookClient.__init__(self, nb, None)
        self.reset_execution_trackers()
        self._check_assign_resources(resources)
        self.timeout, self.iopub_timeout, self.shutdown_kernel = (
            max(1, int(self.run.limits.cell_seconds)),
            10,
            "immediate",
        )
        self.broken: set[int] = set()
        self.restarts, self.started, self.token, self.proof = (
            0,
            time.monotonic(),
            secrets.token_hex(16),
            "",
        )
        self.run.before()
        try:
            with tempfile.TemporaryDirectory(
                prefix="grading-", ignore_cleanup_errors=True
            ) as self.scratch:
                try:
                    self._start()
                    for index, cell in enumerate(nb.cells):
                        if cell.cell_type == "code" and cell.source.strip():
                            self._run(cell, index)
                finally:
                    self._stop()
        finally:
            self.run.after()
        return nb, self.resources

    def _start(self) -> None:
        Path(self.scratch, CHECKS.name).write_text(CODE, encoding="utf-8")
        environment = {
            name: os.environ[name]
            for name in ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "OMP_NUM_THREADS")
            if name in os.environ
        }
        from helpers.settings import SETTINGS

        environment |= {
            name: self.scratch
            for name in (
                "HOME",
                "TMPDIR",
                "IPYTHONDIR",
                "MPLCONFIGDIR",
                "JUPYTER_RUNTIME_DIR",
                "XDG_CACHE_HOME",
            )
        }
        environment |= {
            "BOOK_CACHE": str(SETTINGS.cache),
            "BOOK_PROGRESS": "off",
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "passive",
        }
        environment |= {
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            TOKEN: self.token,
        }
        specs = JailSpec()
        specs.policy = {
            "scratch": self.scratch,
            "user": self.run.user,
            "memory_bytes": self.run.memory_bytes,
            "file_bytes": 2**28,
            "hidden": self.run.hidden,
        }
        self.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
        self.start_new_kernel(cwd=self.scratch, env=environment)
        self.start_new_kernel_client()

    def _stop(self) -> None:
        if self.km is not None:
            self._cleanup_kernel()
        for process in psutil.process_iter():  # whatever the kernel started and left behind
            try:
                if process.environ().get(TOKEN) == self.token:
                    process.kill()
            except psutil.Error:
                continue

    def _run(self, cell: NotebookNode, index: int) -> None:
        if (
            time.monotonic() - self.started > self.run.limits.total_seconds
            or self.restarts > RESTARTS
        ):
            self._fail(cell, "NotRun", "earlier cells used up the time of the whole set")
            return
        try:
            self._once(cell, index)
        except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
            self.broken.add(index)
            why = (
                "did not stop when it was interrupted"
                if isinstance(error, CellTimeoutError)
                else "ended the kernel (out of memory, or on purpose)"
            )
            self._fail(
                cell,
                "KernelDied",
                f"this cell {why}; the kernel was started again and the next cells were run",
            )
            self._restart(index)

    def _restart(self, index: int) -> None:
        """A new kernel, in which the cells before this one were run again: all but checks, and those that break kernels."""
        self.restarts += 1
        self._stop()
        self._start()
        for number, cell in enumerate(self.nb.cells[:index]):
            if (
                cell.cell_type == "code"
                and number not in self.broken
                and not marks(cell).get("grade")
                and self.restarts <= RESTARTS
            ):
                again = NotebookNode(
                    cell_type="code",
                    source=cell.source,
                    metadata={},
                    outputs=[],
                    execution_count=None,
                )
                try:
                    NotebookClient.execute_cell(self, again, number)
                except (DeadKernelError, CellTimeoutError, RuntimeError):
                    self.broken.add(number)
                    self._restart(index)
                    return
                finally:
                    self.nb.cells[number] = cell

    def _once(self, cell: NotebookNode, index: int) -> None:
        graded, source = bool(marks(cell).get("grade")), cell.source
        self.proof, self.seen = (secrets.token_hex(16) if graded else ""), 0
        if graded:
            cell.source = f"{FRESH}{source}\nprint({self.proof!r})"
        try:
            self.execute_cell(cell, index, store_history=not graded)
        finally:
            cell.source = source
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if any(error.ename == "CellTimeoutError" for error in errors):
            self._fail(
                cell,
                "CellTimeoutError",
                f"this cell took more than {self.timeout} seconds and was interrupted",
            )
            return
        if graded:
            self._judge(cell)
        for error in errors:
            if (
                error.ename == "MemoryError"
                or "not enough memory" in error.evalue
                or error.evalue.startswith(jail.NOT_ALLOWED)
            ):
                self._note(cell, f"{error.ename} {error.evalue}".strip())

    def _judge(self, cell: NotebookNode) -> None:
        """Keep of a check's outputs what decides it: an error, or the proof that it ran to its end."""
        text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if not errors and self.proof not in text:
            self._fail(cell, "IncompleteCheck", "this check did not run to its end")
            return
        said = text.replace(self.proof + "\n", "")
        cell.outputs = ([new_output("stream", name="stdout", text=said)] if said else []) + errors[
            -1:
        ]

    def _fail(self, cell: NotebookNode, ename: str, message: str) -> None:
        cell.outputs = [
            new_output("error", ename=ename, evalue=message, traceback=[f"{ename}: {message}"])
        ]
        self._note(cell, message)

    def _note(self, cell: NotebookNode, message: str) -> None:
        self.run.events.append(
            f"{marks(cell).get('grade_id') or 'a cell of the student'}: {message}"
        )

    def process_message(self, msg, cell, cell_index):
        """Drop widgets, and output beyond what anybody reads."""
        kind, content = msg["msg_type"], msg["content"]
        if kind.startswith("comm"):
            return None
        if kind in ("stream", "display_data", "execute_result", "update_display_data"):
            self.seen += len(str(content))
            if self.seen > OUTPUT_BYTES and not (
                self.proof and self.proof in content.get("text", "")
            ):
                return None
        return super().process_message(msg, cell, cell_index)

    async def _async_check_alive(self) -> None:
        """Called every second: a kernel that has taken too much memory is ended, where the operating system did not."""
        try:
            kernel = psutil.Process(self.km.provisioner.pid)
            used = sum(
                process.memory_info().rss for process in (kernel, *kernel.children(recursive=True))
            )
            if used > self.run.memory_bytes:
                self.run.events.append(
                    f"the kernel used {used / 2**30:.1f} GB of memory and was ended"
                )
                kernel.kill()
        except (psutil.Error, AttributeError):
            pass
        await super()._async_check_alive()
