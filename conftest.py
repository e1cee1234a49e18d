"""Each notebook is executed once: nbmake tests it, and the tests' site is built from that run.

Solutions to a chapter's exercises run after its own cells and are tested by the same run.

Applies to everything that pytest collects, notebooks included. Workers of pytest-xdist share the
executed notebooks and the site through files in ``_build/smoke``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import cache as once
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import nbformat
import nbmake.nb_run
import nbmake.pytest_items
import pytest
from filelock import FileLock
from jupyter_cache import get_cache
from nbmake.nb_result import NotebookResult
from nbmake.nb_run import NotebookRun

from book._ext import cache
from book._ext.execute import environment
from book._ext.kernels import Client, Kernels
from book._ext.timings import last_times, longest_first
from tests.solutions import with_solutions, without_solutions

OUT = cache.ROOT / "_build" / "smoke"  # apart from the reader's site, whose results stay valid
# One folder a test session; the workers of a session have one id.
SESSION = OUT / "sessions" / os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
PATIENCE = 3600  # seconds that the site waits for notebooks that other workers execute


def read_with_solutions(path: str, version: int) -> nbformat.NotebookNode:
    return with_solutions(nbformat.read(path, version))


@once
def kernels() -> Kernels:
    """What starts the kernels of this worker."""
    return Kernels(environment(2), fork=cache.device_name() == "cpu")


class KeptRun(NotebookRun):
    """nbmake's run of a notebook, stored where the build of the site looks for it."""

    def execute(self) -> NotebookResult:
        start, path, outcome = time.perf_counter(), Path(self.filename), "failed"
        SESSION.mkdir(parents=True, exist_ok=True)
        try:
            key = cache.key_of(path)
            reader = SimpleNamespace(read=read_with_solutions)
            client = partial(Client, kernels=kernels())
            with (
                mock.patch.object(nbmake.nb_run, "nbformat", reader),
                mock.patch.object(nbmake.nb_run, "NotebookClient", client),
            ):
                result = super().execute()
            if path in cache.notebooks() and result.error is None:
                (OUT / "_build").mkdir(parents=True, exist_ok=True)
                with FileLock(OUT / "keep.lock"):
                    results = get_cache(OUT / "_build" / ".jupyter_cache")
                    seconds, chapter = time.perf_counter() - start, without_solutions(result.nb)
                    cache.keep(results, path, chapter, seconds, key)
            outcome = "" if result.error is None else outcome
            return result
        finally:  # else the site would wait for it
            (SESSION / path.stem).write_text(outcome)


nbmake.pytest_items.NotebookRun = KeptRun


def pytest_sessionfinish() -> None:
    """End the process that the kernels are forks of."""
    if kernels.cache_info().currsize:
        kernels().end()


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks first, the longest at the head; tests of one page of the site to one worker.

    A test of the site stands halfway: the worker that comes to it builds the site, for which others
    would wait where the tests of the site stand.
    """
    notebooks = {Path(item.filename): item for item in items if hasattr(item, "nbmake")}
    ordered = longest_first(notebooks, last_times(OUT / "_build" / "timings.csv"))
    others = [item for item in items if item not in notebooks.values()]
    items[:] = [notebooks[path] for path in ordered] + others
    for item in others:
        values = getattr(getattr(item, "callspec", None), "params", {})
        page = values.get("page", values.get("name"))
        if "site" in item.keywords and page is not None:
            item.add_marker(pytest.mark.xdist_group(f"page {page}"))
    for item in others:
        # Alone, and without a browser: a worker that has one runs the event loop that other tests
        # start.
        fixtures = {"site", "browser"} & {*getattr(item, "fixturenames", ())}
        marks = [bool(item.get_closest_marker(name)) for name in ("site", "xdist_group")]
        if fixtures == {"site"} and marks == [True, False]:
            items.remove(item)
            items.insert(len(notebooks) + len(others) // 2, item)
            break


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Path:
    """The folder with the built pages in the profile smoke; TEST_SITE names another site."""
    if given := os.environ.get("TEST_SITE"):
        return Path(given).resolve()
    wait_for([item for item in request.session.items if hasattr(item, "nbmake")])
    SESSION.mkdir(parents=True, exist_ok=True)
    with FileLock(SESSION / "site.lock"):  # the first worker builds
        outcome = SESSION / "site.txt"
        if not outcome.exists():
            command = [sys.executable, "-m", "book._ext.build", "--out", str(OUT)]
            run = subprocess.run(
                command,
                cwd=cache.ROOT,
                env=os.environ | {"BOOK_PROFILE": "smoke"},
                capture_output=True,
                text=True,
            )
            said = f"{run.stdout[-4000:]}\n{run.stderr[-8000:]}" if run.returncode else ""
            outcome.write_text(said)
    if said := outcome.read_text():
        pytest.fail(f"the site could not be built:\n{said}", pytrace=False)
    return OUT / "_build" / "html"


def wait_for(notebooks: list[pytest.Item]) -> None:
    """Return when the session has executed these notebooks, in this worker or in another."""
    end = time.monotonic() + PATIENCE
    for item in notebooks:
        done = SESSION / Path(item.filename).stem
        while not done.exists():
            if time.monotonic() > end:
                pytest.fail(f"{item.name} was not executed within {PATIENCE} s", pytrace=False)
            time.sleep(0.5)
        if done.read_text():
            pytest.fail(f"there is no site: {item.name} failed, see its test", pytrace=False)
