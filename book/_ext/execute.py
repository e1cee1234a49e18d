"""Execute notebooks side by side, each in a kernel of its own, and say how far each one is."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, DeadKernelError

from book._ext.cache import device_name
from book._ext.kernels import PARENT, Client, Kernels


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
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a warning of the kernel's debugger
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
        PARENT: str(os.getpid()),
    }
    if n_jobs > 1:  # one thread each: processes, not threads, share the cores
        changed |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return os.environ | changed


def execute_all(
    paths: Sequence[Path],
    n_jobs: int,
    on_outcome: Callable[[Outcome], None],
    times: Mapping[str, float] | None = None,
    fork: bool | None = None,
) -> list[Outcome]:
    """Execute notebooks, ``n_jobs`` at a time in the order given; a failure does not stop the rest.

    Args:
        paths: notebooks, the longest first.
        n_jobs: processes at a time.
        on_outcome: called as soon as a notebook is done, one call at a time.
        times: seconds that notebooks took before, by name, to tell the time left.
        fork: whether kernels are forks, see :mod:`book._ext.kernels`; if None, by the device.
    """
    show = Board([path.stem for path in paths], n_jobs, times or {})
    fork = device_name() == "cpu" if fork is None else fork
    kernels, outcomes = Kernels(environment(n_jobs), fork), []
    with _interrupted_by_sigterm(), ThreadPoolExecutor(n_jobs) as pool:
        try:
            futures = [pool.submit(_execute, path, kernels, show) for path in paths]
            for future in as_completed(futures):
                outcomes.append(future.result())
                on_outcome(outcomes[-1])
        finally:  # after Ctrl-C: what is done is kept, what is running is ended
            pool.shutdown(wait=False, cancel_futures=True)
            kernels.end()
    return outcomes


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Inside a ``with`` block a signal to end does what Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _execute(path: Path, kernels: Kernels, show: Board) -> Outcome:
    """Run one notebook in a kernel of its own."""
    start, notebook = time.perf_counter(), nbformat.read(path, as_version=4)
    n_cells = len(notebook.cells)

    def started(cell: nbformat.NotebookNode, cell_index: int) -> None:
        show.update(path.stem, f"cell {cell_index + 1} of {n_cells}")

    client = Client(
        notebook,
        kernels=kernels,
        timeout=None,
        record_timing=True,
        on_cell_start=started,
        resources={"metadata": {"path": str(path.parent)}},
    )
    error = ""
    try:
        client.execute()
    except CellExecutionError as failure:
        # Which cell it was, since the error does not say, and its output may not either.
        failed = [i for i, cell in enumerate(notebook.cells) if _failed(cell)]
        where = f"cell {failed[0] + 1} of {n_cells}" if failed else show.states[path.stem]
        text = re.sub(r"\x1b\[[\d;]*m", "", str(failure)).strip()
        error = f"{where}\n{text}"
    except DeadKernelError:
        error = f"{show.states[path.stem]}\nits kernel died; is there enough memory?"
    seconds = time.perf_counter() - start
    show.update(path.stem, "FAILED" if error else "done", seconds)
    return Outcome(path, seconds, None if error else notebook, error)


def _failed(cell: nbformat.NotebookNode) -> bool:
    return any(output.output_type == "error" for output in cell.get("outputs", ()))


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
