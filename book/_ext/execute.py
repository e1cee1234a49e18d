"""Execute notebooks in parallel processes, and say on the way how far each one is.

``python -m book._ext.execute NOTEBOOK OUT`` is one such process: it executes a notebook with
nbclient, writes the executed copy to OUT, and prints a line of JSON after every cell.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "python3"  # the one of this environment, whatever name an editor saved in a notebook
# From <linux/prctl.h>: have the kernel send a signal when the parent dies, however it dies.
PR_SET_PDEATHSIG = 1
PARENT = "STEERING_BOOK_PARENT"  # the id of the process that starts others; 1 in some containers


@dataclass(frozen=True)
class Outcome:
    """How the execution of one notebook ended.

    Attributes:
        path: the notebook.
        seconds: wall-clock time.
        notebook: the executed copy; None if it failed.
        error: which cell failed and why; empty if none did.
    """

    path: Path
    seconds: float
    notebook: nbformat.NotebookNode | None
    error: str = ""


def environment(n_jobs: int) -> dict[str, str]:
    """Environment variables for processes that execute notebooks or build pages."""
    changed = {
        "BOOK_PROGRESS": "off",  # progress bars would end up in the pages
        # "python3" is this interpreter, whatever kernels are installed for the user.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PATH": str(Path(sys.prefix, "share", "jupyter")),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a warning of the kernel's debugger
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
        PARENT: str(os.getpid()),
    }
    if n_jobs > 1:  # one thread each: processes, not threads, share the cores
        changed |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return os.environ | changed


def die_with_parent() -> None:
    """Have this process killed when its parent dies, so that none is left running alone (Linux).

    A notebook's kernel watches its own parent and ends a second later (ipykernel does that).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ[PARENT]):  # it died before the line above
            sys.exit("the process that started this one is gone")


def execute_all(
    paths: Sequence[Path],
    n_jobs: int,
    on_outcome: Callable[[Outcome], None],
    times: Mapping[str, float] | None = None,
) -> list[Outcome]:
    """Execute notebooks, ``n_jobs`` at a time in the order given; a failure does not stop the rest.

    Args:
        paths: notebooks, the longest first.
        n_jobs: processes at a time.
        on_outcome: called as soon as a notebook is done, one call at a time.
        times: seconds that notebooks took before, by name, to tell the time left.
    """
    show = Board([path.stem for path in paths], n_jobs, times or {})
    outcomes = []
    with _started() as processes, ThreadPoolExecutor(n_jobs) as pool:
        try:
            futures = [pool.submit(_execute, path, n_jobs, processes, show) for path in paths]
            for future in as_completed(futures):
                outcomes.append(future.result())
                on_outcome(outcomes[-1])
        except BaseException:  # Ctrl-C: what is done is kept, what is running is ended
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(processes):
                process.terminate()
            raise
    return outcomes


@contextmanager
def _started() -> Iterator[set[subprocess.Popen]]:
    """The processes under way; a signal to end ends them too."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield set()
    finally:
        signal.signal(signal.SIGTERM, before)


def _execute(path: Path, n_jobs: int, processes: set, show: Board) -> Outcome:
    """Run one notebook in a process of its own and follow what it prints."""
    start, log = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "executed.ipynb")
        command = [sys.executable, "-m", "book._ext.execute", str(path), str(out)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(n_jobs),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.add(process)
        error = ""
        # It prints a line of JSON a cell; other lines are kept in case it dies without one.
        for line in process.stdout:
            told = _message(line)
            if told is None:
                log.append(line)
            elif "error" in told:
                error = told["error"]
            else:
                show.update(path.stem, f"cell {told['cell']} of {told['of']}")
        status = process.wait()
        processes.discard(process)
        seconds = time.perf_counter() - start
        if status:
            error = error or "".join(log[-30:]) or f"its process ended with status {status}"
            show.update(path.stem, "FAILED", seconds)
            return Outcome(path, seconds, None, error)
        show.update(path.stem, "done", seconds)
        return Outcome(path, seconds, nbformat.read(out, as_version=4))


def _message(line: str) -> dict | None:
    """A line of JSON as :func:`main` prints it, or None."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and {"cell", "error"} & set(told) else None


class Board:
    """What is waiting, running and done: a line a notebook on a terminal, else a line an event."""

    def __init__(self, names: Sequence[str], n_jobs: int, times: Mapping[str, float]) -> None:
        self.states = dict.fromkeys(names, "waiting")
        self.n_jobs, self.times = n_jobs, times
        self.started: dict[str, float] = {}
        self.done: set[str] = set()
        self.live = sys.stdout.isatty()
        self.drawn = 0
        self.start = time.perf_counter()

    def update(self, name: str, state: str, seconds: float | None = None) -> None:
        """Note the state of a notebook and show it; cells are shown on a terminal only."""
        ended, first = seconds is not None, name not in self.started
        self.started.setdefault(name, time.perf_counter())
        self.states[name] = f"{state} in {seconds:.0f} s" if ended else state
        if ended:
            self.done.add(name)
        if self.live:
            self._draw()
        elif ended or first:
            print(f"{name}: {self.states[name] if ended else 'started'}", flush=True)

    def time_left(self) -> float | None:
        """Seconds until all are done, by their last times; None if one of them has none."""
        now, left = time.perf_counter(), [0.0]
        for name in self.states.keys() - self.done:
            if name not in self.times:
                return None
            left.append(max(0.0, self.times[name] - (now - self.started.get(name, now))))
        return max(max(left), sum(left) / self.n_jobs)

    def _draw(self) -> None:
        lines = [f"{name:16} {state}" for name, state in self.states.items()]
        last = f"{len(self.done)} of {len(lines)}, {time.perf_counter() - self.start:.0f} s so far"
        if left := self.time_left():
            last += f", about {left:.0f} s left"
        up = f"\x1b[{self.drawn}A" if self.drawn else ""
        print(up + "".join(f"\x1b[2K{line}\n" for line in [*lines, last]), end="", flush=True)
        self.drawn = len(lines) + 1


def main(path: Path, out: Path) -> int:
    """Execute one notebook; the exit status is 1 if a cell fails."""
    die_with_parent()
    notebook = nbformat.read(path, as_version=4)
    n_cells = len(notebook.cells)

    def started(cell: nbformat.NotebookNode, cell_index: int) -> None:
        print(json.dumps({"cell": cell_index + 1, "of": n_cells}), flush=True)

    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name=KERNEL,
        record_timing=True,
        on_cell_start=started,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        # Which cell it was, since the error does not say.
        index = next(i for i, cell in enumerate(notebook.cells) if _failed(cell))
        text = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
        print(json.dumps({"error": f"cell {index + 1} of {n_cells}\n{text}"}), flush=True)
        return 1
    nbformat.write(notebook, out)
    return 0


def _failed(cell: nbformat.NotebookNode) -> bool:
    return any(output.output_type == "error" for output in cell.get("outputs", ()))


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
