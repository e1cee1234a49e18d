"""Build the site: execute the chapters that are out of date, then call jupyter-book.

Executed notebooks lie in jupyter-book's own cache, which knows a notebook by its code cells. It
sees neither the modules that a notebook imports nor the settings it runs under. So every result is
stored with a key, computed from all that the notebook depends on (``helpers.runs.code``), and is
removed when the key is another one. jupyter-book then finds every chapter in its cache.

``python -m book._ext.build [--out DIR] [--chapter NAME]`` builds into DIR/_build/html.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.cache.db import NbCacheRecord
from sphinx_external_toc.parsing import parse_toc_yaml

from book._ext.execute import ROOT, Outcome, environment, execute_all
from book._ext.timings import longest_first, seconds_of, write_timings
from helpers.models.smollm2 import GGUF_SHA256
from helpers.runs.code import files_digest, files_of
from helpers.settings import SETTINGS

SPHINX = (
    "from book._ext.execute import die_with_parent; die_with_parent(); "
    "from jupyter_book.cli.main import main; main()"
)


# Which results are out of date


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the table of contents, in its order."""
    pages = [root / "book" / f"{page}.ipynb" for page in parse_toc_yaml(root / "book" / "_toc.yml")]
    return [path for path in pages if path.is_file()]


def code_of(notebook: Path) -> str:
    """The Python of a notebook's code cells, with IPython's magic lines turned into calls."""
    cells = nbformat.read(notebook, as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    return "\n".join(map(TransformerManager().transform_cell, sources))


@cache
def device_name() -> str:
    """The device that the chapters will run on.

    Raises:
        ValueError: BOOK_DEVICE names one that this machine does not have.
    """
    if SETTINGS.device == "cpu":
        return "cpu"
    if SETTINGS.device == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    from helpers.models.load import resolve_device  # takes seconds to import

    return str(resolve_device(SETTINGS.device))


def key_of(notebook: Path, root: Path = ROOT, known: dict | None = None) -> str:
    """A digest of all that a notebook's results depend on, but for its own cells.

    Args:
        notebook: its path.
        root: the repository.
        known: what ``helpers.runs.code.files_of`` keeps from one call to the next.
    """
    facts = [SETTINGS.model, device_name(), SETTINGS.profile, str(SETTINGS.seed), GGUF_SHA256]
    files = files_of([(code_of(notebook), notebook.parent)], root, known)
    facts += [sys.version, files_digest({*files, root / "constraints.txt"}, root)]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def record_of(results: JupyterCacheAbstract, notebook: Path) -> NbCacheRecord | None:
    """The cached execution that jupyter-book would show for this notebook, if there is one."""
    try:
        return results.match_cache_notebook(nbformat.read(notebook, as_version=4))
    except KeyError:
        return None


def stale(results: JupyterCacheAbstract, root: Path = ROOT) -> list[Path]:
    """Remove results that are out of date; the notebooks that have to be executed."""
    waiting, known = [], {}
    for path in notebooks(root):
        record = record_of(results, path)
        if record is not None and (record.data or {}).get("key") == key_of(path, root, known):
            continue
        if record is not None:
            results.remove_cache(record.pk)
        waiting.append(path)
    return waiting


def keep(
    results: JupyterCacheAbstract,
    path: Path,
    notebook: nbformat.NotebookNode,
    seconds: float,
    root: Path = ROOT,
) -> None:
    """Store an executed notebook with its key, where jupyter-book looks for it."""
    data = {"execution_seconds": seconds, "key": key_of(path, root)}
    data["cell_seconds"] = [seconds_of(cell) for cell in notebook.cells]
    # The cache's own key covers the metadata of the notebook and its cells, which executing it
    # changed: put back what is on disk.
    saved = nbformat.read(path, as_version=4)
    notebook.metadata = saved.metadata
    for cell, before in zip(notebook.cells, saved.cells):
        cell.metadata = before.metadata
    bundle = CacheBundleIn(notebook, str(path), data=data)
    results.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


# The build


def cell_seconds(results: JupyterCacheAbstract) -> dict[str, list[float | None]]:
    """Seconds of every cell, by the name of the chapter."""
    records = {path.stem: record_of(results, path) for path in notebooks()}
    return {name: record.data.get("cell_seconds", []) for name, record in records.items() if record}


def n_jobs() -> int:
    """Chapters at a time: BOOK_JOBS, else one a core, and one alone on a GPU."""
    if SETTINGS.jobs:
        return SETTINGS.jobs
    if device_name() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jupyter_book(out: Path, *options: str) -> int:
    """Run jupyter-book into ``out/_build``; its exit status."""
    command = [sys.executable, "-c", SPHINX, "build", str(ROOT / "book"), *options]
    command += ["--config", str(ROOT / "_config.yml"), "--path-output", str(out)]
    return subprocess.run(command, cwd=ROOT, env=environment(1)).returncode


def execute_stale(results: JupyterCacheAbstract, paths: list[Path], folder: Path) -> list[Outcome]:
    """Execute chapters in parallel and store each as soon as it is done; those that failed."""
    jobs = min(n_jobs(), len(paths)) or 1
    ordered = longest_first(paths, folder / "timings.csv")
    names = ", ".join(path.stem for path in ordered)
    print(f"Settings: {SETTINGS}. To execute, {jobs} at a time: {names}.", flush=True)

    def done(outcome: Outcome) -> None:
        if outcome.notebook is not None:
            keep(results, outcome.path, outcome.notebook, outcome.seconds)

    outcomes = execute_all(ordered, jobs, done)
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
        if waiting:
            # Pages show figures of other pages, which Sphinx does not track: read them all again.
            shutil.rmtree(folder / ".doctrees", ignore_errors=True)
        status = run_jupyter_book(out, "-W", "--keep-going")
        if status:
            # Sphinx warns only when it reads a page: without its memory the next build warns too.
            shutil.rmtree(folder / ".doctrees", ignore_errors=True)
        report(results, {path.stem for path in waiting})
    if status:
        print("\nThe build FAILED: see the messages above.", file=sys.stderr)
    else:
        print(f"\nThe book is ready: {folder / 'html' / 'index.html'}")
    return status


def build_chapter(
    name: str, results: JupyterCacheAbstract, waiting: list[Path], folder: Path
) -> int:
    """One chapter as a site of its own; links to other pages lead nowhere there."""
    found = [path for path in notebooks() if path.stem == name]
    if not found:
        names = ", ".join(path.stem for path in notebooks())
        print(f"There is no chapter {name!r}; the chapters are {names}.", file=sys.stderr)
        return 1
    (path,) = found
    if path in waiting and execute_stale(results, [path], folder):
        return 1
    site = folder / "chapter"
    (site / "_build").mkdir(parents=True, exist_ok=True)
    bundle = results.get_cache_bundle(record_of(results, path).pk)
    keep(get_cache(site / "_build" / ".jupyter_cache"), path, bundle.nb, 0.0)
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
