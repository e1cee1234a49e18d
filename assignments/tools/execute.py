"""Run a submission so that nothing in it can stop the grading: nbgrader's step, made robust.

A cell that takes too long or ends the kernel loses its points. A new kernel is started, the cells
before it are rerun without it, and the cells after it run. A check counts as passed only if it ran
to its last line.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient.client import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output
from nbgrader.preprocessors import Execute

from assignments.tools import jail
from assignments.tools.backup import backup, restore
from assignments.tools.kernel import JailSpec, Run, environment
from assignments.tools.sources import CHECKS, marks

TOKEN = "STEERING_BOOK_GRADING"  # environment variable of every process that a kernel starts
MAX_OUTPUT = 500_000  # characters a cell; the rest is dropped
MAX_RESTARTS = 5
KERNEL_LOST = (DeadKernelError, CellTimeoutError, RuntimeError)

CODE = CHECKS.read_text(encoding="utf-8")
# Put in front of each check: the functions of checks.py as they were before any student code ran,
# whatever has since become of the module, its file or these names.
FRESH = f"""
import sys as _s
if "checks" in _s.modules:
    _m = vars(_s.modules["checks"])
    exec(compile({CODE!r}, "checks.py", "exec", dont_inherit=True), _m)
    globals().update({{_n: _m[_n] for _n in _m["__all__"]}})
"""


class GradedExecute(Execute):
    """nbgrader's Execute for untrusted code. Set ``run`` before each submission."""

    run: ClassVar[Run]

    def preprocess(self, nb, resources=None, km=None):
        NotebookClient.__init__(self, nb, None)
        self.reset_execution_trackers()
        self._check_assign_resources(resources)
        self.timeout = max(1, int(self.run.cell_seconds))
        self.iopub_timeout, self.shutdown_kernel = 10, "immediate"
        self.broken: set[int] = set()  # cells that ended a kernel
        self.restarts, self.proof, self.token = 0, "", secrets.token_hex(16)
        self.started = time.monotonic()
        files = backup(self.run.course)
        folder = tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True)
        try:
            with folder as place:
                self._make_folders(Path(place))
                try:
                    self._start()
                    for index, cell in enumerate(nb.cells):
                        if cell.cell_type == "code" and cell.source.strip():
                            self._run(cell, index)
                finally:
                    self._stop()
        finally:
            if restored := restore(files):
                self.run.events.append(
                    f"{len(restored)} files of the grader were changed or deleted while this "
                    "ran, and were restored"
                )
        return nb, self.resources

    def _make_folders(self, place: Path) -> None:
        """One folder that student code can write to, and one with checks.py that it cannot."""
        place.chmod(0o755)  # for a kernel that runs as another user
        self.scratch, self.handout = str(place / "scratch"), str(place / "handout")
        os.mkdir(self.scratch)
        os.mkdir(self.handout)
        Path(self.handout, CHECKS.name).write_text(CODE, encoding="utf-8")

    def _start(self) -> None:
        specs = JailSpec()
        specs.policy = self.run.policy(self.scratch)
        self.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
        variables = environment(self.scratch, self.handout) | {TOKEN: self.token}
        self.start_new_kernel(cwd=self.scratch, env=variables)
        self.start_new_kernel_client()

    def _stop(self) -> None:
        """End the kernel and every process that it left behind."""
        if self.km is not None:
            self._cleanup_kernel()
        for process in psutil.process_iter():
            try:
                if process.environ().get(TOKEN) == self.token:
                    process.kill()
            except psutil.Error:
                continue

    def _run(self, cell: NotebookNode, index: int) -> None:
        """Run a cell; if that costs the kernel, go on with a new one."""
        seconds = time.monotonic() - self.started
        if seconds > self.run.total_seconds or self.restarts > MAX_RESTARTS:
            self._fail(cell, "NotRun", "earlier cells used up the time of the whole set")
            return
        try:
            self._once(cell, index)
        except KERNEL_LOST as error:
            self.broken.add(index)
            why = "ended the kernel (out of memory, or on purpose)"
            if isinstance(error, CellTimeoutError):
                why = "did not stop when it was interrupted"
            message = f"this cell {why}; a new kernel was started and the next cells were run"
            self._fail(cell, "KernelDied", message)
            self._restart(index)

    def _restart(self, index: int) -> None:
        """Start a new kernel and rerun earlier cells, except checks and those that end kernels."""
        self.restarts += 1
        self._stop()
        self._start()
        for number, cell in enumerate(self.nb.cells[:index]):
            if self.restarts > MAX_RESTARTS:
                return
            if cell.cell_type != "code" or number in self.broken or marks(cell).get("grade"):
                continue
            try:
                NotebookClient.execute_cell(self, new_code_cell(cell.source), number)
            except KERNEL_LOST:
                self.broken.add(number)
                self._restart(index)
                return
            finally:
                self.nb.cells[number] = cell

    def _once(self, cell: NotebookNode, index: int) -> None:
        """Run a cell; a check with fresh functions before it and a proof of its end after it."""
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
            message = f"this cell took more than {self.timeout} seconds and was interrupted"
            self._fail(cell, "CellTimeoutError", message)
            return
        if graded:
            self._judge(cell, errors)
        for error in errors:
            memory = error.ename == "MemoryError" or "not enough memory" in error.evalue
            if memory or error.evalue.startswith(jail.NOT_ALLOWED):
                self._note(cell, f"{error.ename} {error.evalue}".strip())

    def _judge(self, cell: NotebookNode, errors: list[NotebookNode]) -> None:
        """Keep a check's text and error, which decide it; without an error it needs the proof."""
        text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        if not errors and self.proof not in text:
            self._fail(cell, "IncompleteCheck", "this check did not run to its end")
            return
        text = text.replace(self.proof + "\n", "")
        printed = [new_output("stream", name="stdout", text=text)] if text else []
        cell.outputs = printed + errors[-1:]

    def _fail(self, cell: NotebookNode, ename: str, message: str) -> None:
        error = {"ename": ename, "evalue": message, "traceback": [f"{ename}: {message}"]}
        cell.outputs = [new_output("error", **error)]
        self._note(cell, message)

    def _note(self, cell: NotebookNode, message: str) -> None:
        place = marks(cell).get("grade_id") or "a cell of the student"
        self.run.events.append(f"{place}: {message}")

    def process_message(self, msg, cell, cell_index):
        """Drop widgets, and output beyond what anybody reads."""
        kind, content = msg["msg_type"], msg["content"]
        if kind.startswith("comm"):
            return None
        if kind in ("stream", "display_data", "execute_result", "update_display_data"):
            self.seen += len(str(content))
            proof = self.proof and self.proof in content.get("text", "")
            if self.seen > MAX_OUTPUT and not proof:
                return None
        return super().process_message(msg, cell, cell_index)

    async def _async_check_alive(self) -> None:
        """End a kernel that uses too much memory (called every second).

        Not every operating system enforces the limit that the kernel sets for itself.
        """
        try:
            kernel = psutil.Process(self.km.provisioner.pid)
            processes = [kernel, *kernel.children(recursive=True)]
            used = sum(process.memory_info().rss for process in processes)
            if used > self.run.memory_bytes:
                used_gb = f"{used / 2**30:.1f} GB"
                self.run.events.append(f"the kernel used {used_gb} of memory and was ended")
                kernel.kill()
        except (psutil.Error, AttributeError):
            pass
        await super()._async_check_alive()
