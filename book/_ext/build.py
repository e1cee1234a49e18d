"""Build the site: execute the chapters that are out of date, then call jupyter-book.

``python -m book._ext.build [--out DIR] [--chapter NAME]`` builds into DIR/_build/html.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from jupyter_cache import get_cache
from jupyter_cache.base import JupyterCacheAbstract

from book._ext.cache import device_name, executions, keep, notebooks, record_of, stale
from book._ext.execute import Outcome, environment, execute_all
from book._ext.kernels import ROOT
from book._ext.timings import last_times, longest_first, write_timings
from helpers.runs.code import files_digest
from helpers.settings import SETTINGS

MEMORY = 4e9  # bytes that a chapter may need
SPHINX = (
    "from book._ext.kernels import die_with_parent; die_with_parent(); "
    "from jupyter_book.cli.main import main; main()"
)


def cell_seconds(results: JupyterCacheAbstract) -> dict[str, list[float | None]]:
    """Seconds of every cell, by the name of the chapter."""
    records = {path.stem: record_of(results, path) for path in notebooks()}
    return {name: record.data.get("cell_seconds", []) for name, record in records.items() if record}


def n_jobs() -> int:
    """Chapters at a time: BOOK_JOBS, else one a core that has memory, and one alone on a GPU."""
    if SETTINGS.jobs:
        return SETTINGS.jobs
    if device_name() != "cpu":
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    n_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(n_cores, int(free_memory() // MEMORY)))


def free_memory() -> float:
    """Bytes that this machine, or the container that the build runs in, has left."""
    left = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup", f"memory.{name}") for name in ("max", "current"))
    if limit.is_file() and used.is_file() and (bound := limit.read_text().strip()) != "max":
        left = min(left, int(bound) - int(used.read_text()))
    return left


def run_jupyter_book(out: Path, *options: str) -> int:
    """Run jupyter-book into ``out/_build``; its exit status."""
    command = [sys.executable, "-c", SPHINX, "build", str(ROOT / "book"), *options]
    command += ["--config", str(ROOT / "_config.yml"), "--path-output", str(out)]
    return subprocess.run(command, cwd=ROOT, env=environment(1)).returncode


def execute_stale(
    results: JupyterCacheAbstract, keys: dict[Path, str], folder: Path
) -> list[Outcome]:
    """Execute chapters in parallel and store each as soon as it is done; those that failed."""
    jobs = min(n_jobs(), len(keys)) or 1
    times = last_times(folder / "timings.csv")
    ordered = longest_first(keys, times)
    if device_name() == "cpu":
        # Sums depend on the number of threads: a chapter alone gives the digits of a whole build.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    names = ", ".join(path.stem for path in ordered)
    print(f"Settings: {SETTINGS}. To execute, {jobs} at a time: {names}.", flush=True)

    def done(outcome: Outcome) -> None:
        if outcome.notebook is not None:
            keep(results, outcome.path, outcome.notebook, outcome.seconds, keys[outcome.path])

    outcomes = execute_all(ordered, jobs, done, times)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(f"\n{outcome.path.stem} FAILED in {outcome.error}", file=sys.stderr)
    return failed


def build(out: Path = ROOT, chapter: str = "") -> int:
    """Build the site into ``out/_build/html`` and say where it is and how long each chapter took.

    Args:
        out: the folder that holds ``_build``.
        chapter: execute and build this chapter alone, into ``out/_build/chapter``.

    Returns:
        The exit status: 0 when every chapter ran and there was no warning.
    """
    device_name()  # an unknown device or scheduler is refused before any long work
    if SETTINGS.scheduler.startswith(("tcp:", "tls:")):
        from helpers.runs.workers import connect  # takes seconds to import

        connect()
    import matplotlib.font_manager  # noqa: F401  builds its font cache, and says so only once

    folder = out / "_build"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        results = get_cache(folder / ".jupyter_cache")
        waiting = stale(results)
        if chapter:
            return build_chapter(chapter, results, waiting, folder)
        failed = execute_stale(results, waiting, folder) if waiting else []
        write_timings(cell_seconds(results), folder / "timings.csv")
        if failed:
            print("\nThe site was not built: see the errors above.", file=sys.stderr)
            return 1
        status = draw(results, out)
        report(results, {path.stem for path in waiting})
    if status:
        print("\nThe build FAILED: see the messages above.", file=sys.stderr)
    else:
        print(f"\nThe book is ready: {folder / 'html' / 'index.html'}")
    return status


def draw(results: JupyterCacheAbstract, out: Path) -> int:
    """Have jupyter-book draw the pages, unless nothing has changed since; the exit status."""
    folder = out / "_build"
    now, drawn = [executions(results), sources_digest()], folder / "drawn.json"
    before = json.loads(drawn.read_text(encoding="utf-8")) if drawn.is_file() else ["", ""]
    if before == now and (folder / "html" / "index.html").is_file():
        return 0
    # Sphinx does not see that a page's outputs have changed, or those of another page that it
    # shows; they may have been executed by the tests, or for one chapter alone.
    if before[0] != now[0]:
        shutil.rmtree(folder / ".doctrees", ignore_errors=True)
    # Sphinx warns only when it reads a page: without its memory the next build warns too.
    drawn.unlink(missing_ok=True)
    status = run_jupyter_book(out, "-W", "--keep-going")
    if not status:
        drawn.write_text(json.dumps(now), encoding="utf-8")
    return status


def sources_digest(root: Path = ROOT) -> str:
    """A digest of all files that pages are made from, the reference's modules among them."""
    files = [root / "_config.yml", root / "constraints.txt"]
    for folder in ("book", "helpers", "assignments"):
        for path in (root / folder).rglob("*"):
            if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts):
                files.append(path)
    return files_digest(files, root)


def build_chapter(
    name: str, results: JupyterCacheAbstract, waiting: dict[Path, str], folder: Path
) -> int:
    """One chapter as a site of its own; links to other pages lead nowhere there."""
    found = [path for path in notebooks() if path.stem == name]
    if not found:
        names = ", ".join(path.stem for path in notebooks())
        print(f"There is no chapter {name!r}; the chapters are {names}.", file=sys.stderr)
        return 1
    (path,) = found
    if path in waiting and execute_stale(results, {path: waiting[path]}, folder):
        return 1
    site = folder / "chapter"
    (site / "_build").mkdir(parents=True, exist_ok=True)
    cache = site / "_build" / ".jupyter_cache"  # where jupyter-book looks
    if not cache.is_symlink():
        cache.symlink_to(folder / ".jupyter_cache")
    page = path.relative_to(ROOT / "book").with_suffix("").as_posix()
    (site / "_toc.yml").write_text(f"format: jb-book\nroot: {page}\n", encoding="utf-8")
    status = run_jupyter_book(site, "--toc", str(site / "_toc.yml"), "--quiet")
    print(f"\nThe chapter alone: {site / '_build' / 'html' / page}.html")
    return status


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a build folder, once no other build has it."""
    lock = FileLock(folder / "build.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another build is running in {folder}; waiting for it.", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def report(results: JupyterCacheAbstract, executed: set[str]) -> None:
    """Print how long each chapter took, and whether it was executed in this build."""
    print(f"\n{'chapter':40} {'seconds':>8}  ({SETTINGS})")
    for path in notebooks():
        record = record_of(results, path)
        seconds = (record.data or {}).get("execution_seconds", 0.0) if record else 0.0
        name = path.relative_to(ROOT / "book").with_suffix("").as_posix()
        print(f"{name:40} {seconds:8.1f}  {'executed' if path.stem in executed else 'cached'}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m book._ext.build",
        description="Execute the chapters that are out of date, and build the site.",
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="build into OUT/_build")
    parser.add_argument("--chapter", default="", help="only this chapter, for example pareto")
    given = parser.parse_args()
    try:
        return build(given.out.resolve(), given.chapter)
    except KeyboardInterrupt:
        print("\nStopped. Chapters that were done are kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
