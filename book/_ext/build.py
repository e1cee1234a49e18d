"""Build the site: forget the results that are out of date, and let jupyter-book do the rest.

jupyter-book keeps each executed notebook in a jupyter-cache and runs it again when one of its code cells changes. It does
not see the helpers that a notebook imports, nor the settings it runs under. So, before each build, this module computes a
key for each notebook from all that the notebook can depend on, and removes the results whose key has changed.

``python -m book._ext.build [--out DIR]`` builds into DIR/_build/html; DIR is the book's own folder if it is not given.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat
from filelock import FileLock, Timeout
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_cache import get_cache
from jupyter_cache.base import JupyterCacheAbstract
from jupyter_cache.cache.db import NbCacheRecord
from sphinx_external_toc.parsing import parse_toc_yaml

from helpers.models.smollm2 import GGUF_SHA256
from helpers.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
# What a notebook may read besides modules. Any of the data runs every notebook again, a recorded table those that name it.
DATA, RECORDED = "helpers/prompts/data", "book/results"


class Result(NamedTuple):
    """What became of one chapter in a build."""

    chapter: str
    seconds: float | None
    state: str


def imported_modules(source: str, package: str = "") -> set[str]:
    """The modules that a piece of Python may import, by their full names; for ``from a import b`` both a and a.b.

    Args:
        source: Python code.
        package: the package the code belongs to, against which relative imports are resolved.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def helper_files(modules: set[str], root: Path) -> set[Path]:
    """The files of ``helpers/`` that importing these modules runs, those that they import in turn included."""
    files: set[Path] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name.split(".")[0] != "helpers":
            continue
        # Importing helpers.x runs helpers/__init__.py too.
        for path in (root / "helpers/__init__.py", root / (name.replace(".", "/") + ".py")):
            if path.is_file() and path not in files:
                files.add(path)
                waiting += imported_modules(path.read_text(encoding="utf-8"), package=name.rpartition(".")[0])
    return files


def code_of(notebook: Path) -> str:
    """The Python of a notebook's code cells, with IPython's magic lines turned into calls."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(
        TransformerManager().transform_cell(cell.source)
        for cell in cells
        if cell.cell_type == "code"
    )


@cache
def device_name() -> str:
    """The device that the chapters will run on.

    Raises:
        ValueError: BOOK_DEVICE names one that this machine does not have.
    """
    if SETTINGS.device == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    if SETTINGS.device == "cpu":
        return "cpu"
    from helpers.models.load import (
        resolve_device,  # takes seconds to import, so only where there is something to check
    )

    return str(resolve_device(SETTINGS.device))


def key_of(notebook: Path, root: Path) -> str:
    """A digest of all that a notebook's results depend on, apart from its own cells, which jupyter-cache watches."""
    digest = hashlib.sha256()
    for fact in (
        SETTINGS.model,
        device_name(),
        SETTINGS.profile,
        str(SETTINGS.seed),
        GGUF_SHA256,
        sys.version,
    ):
        digest.update(fact.encode() + b"\0")
    code = code_of(notebook)
    data = [path for path in (root / DATA).rglob("*") if path.is_file()]
    tables = [path for path in (root / RECORDED).glob("*") if path.stem in code]
    try:
        modules = imported_modules(code)
    except SyntaxError:  # running the notebook will say so, and better
        modules = set()
    for path in sorted({root / "constraints.txt", *data, *tables, *helper_files(modules, root)}):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the table of contents, in its order."""
    pages = [root / "book" / f"{page}.ipynb" for page in parse_toc_yaml(root / "book" / "_toc.yml")]
    return [path for path in pages if path.is_file()]


def record_of(results: JupyterCacheAbstract, notebook: Path) -> NbCacheRecord | None:
    """The cached execution that jupyter-book would show for this notebook, if there is one."""
    try:
        return results.match_cache_notebook(nbformat.read(notebook, as_version=4))
    except KeyError:
        return None


def forget_outdated(
    results: JupyterCacheAbstract, keys_file: Path, root: Path = ROOT
) -> list[Path]:
    """Remove the results whose key has changed since they were made.

    Args:
        results: jupyter-book's cache.
        keys_file: where the keys are kept between builds.
        root: the folder with ``book/``, ``helpers/`` and ``constraints.txt``.

    Returns:
        The notebooks that the build will have to execute.
    """
    try:
        known = json.loads(keys_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # the first build, or one cut off while it wrote: trust nothing
        known = {}
    keys = {path.relative_to(root).as_posix(): key_of(path, root) for path in notebooks(root)}
    changed = {name for name, key in keys.items() if known.get(name) != key}
    matching = {record.pk for name in changed if (record := record_of(results, root / name))}
    for record in results.list_cache_records():
        # By path too: a result of an earlier text of the notebook would come back with that text, and be out of date.
        if record.pk in matching or any(Path(record.uri) == root / name for name in changed):
            results.remove_cache(record.pk)
    # Only now: a build that is cut off before this line removes the same results again, which does no harm.
    keys_file.write_text(json.dumps(keys, indent=1), encoding="utf-8")
    return [path for path in notebooks(root) if record_of(results, path) is None]


def run_jupyter_book(out: Path) -> int:
    """Run jupyter-book; notebooks that fail, broken links and all other warnings make its exit status non-zero."""
    environment = {
        **os.environ,
        # Progress bars would end up in the pages.
        "BOOK_PROGRESS": "off",
        # The kernel called "python3" is to be this interpreter, whatever kernels the user has installed elsewhere.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PATH": str(Path(sys.prefix, "share", "jupyter")),
        # A debugger in the kernel is of no use here, and it warns about frozen modules on the page.
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        str(ROOT / "book"),
    ]
    command += [
        "--config",
        str(ROOT / "_config.yml"),
        "--path-output",
        str(out),
        "-W",
        "--keep-going",
    ]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def results_of(results: JupyterCacheAbstract, started: datetime) -> list[Result]:
    """What became of each chapter: executed in this build, taken from the cache, or failed."""
    rows = []
    for path in notebooks():
        record = record_of(results, path)
        # The cache's times are UTC without saying so.
        now = record is not None and record.created.replace(tzinfo=timezone.utc) >= started
        state = "FAILED" if record is None else "executed now" if now else "from the cache"
        seconds = None if record is None else (record.data or {}).get("execution_seconds")
        rows.append(
            Result(path.relative_to(ROOT / "book").with_suffix("").as_posix(), seconds, state)
        )
    return rows


def build(out: Path = ROOT) -> int:
    """Build the site into ``out/_build/html`` and say where it is and how long each chapter took.

    Returns:
        The exit status: 0 when every chapter ran and nothing was warned of.
    """
    device_name()  # refuse a device or a scheduler that is not there before any long work
    if SETTINGS.scheduler.startswith(("tcp:", "tls:")):
        from helpers.runs.workers import connect  # takes seconds to import

        connect()
    import matplotlib.font_manager  # noqa: F401  makes the font cache once, which else is announced on the first page

    folder = out / "_build"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "build.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another build is at work in {folder}; waiting for it to end.", flush=True)
        lock.acquire()
    with lock:
        started = datetime.now(timezone.utc)
        results = get_cache(folder / ".jupyter_cache")
        waiting = forget_outdated(results, folder / "keys.json")
        if waiting:
            print(
                f"Settings: {SETTINGS}. To be executed: {', '.join(path.stem for path in waiting)}.",
                flush=True,
            )
            # Pages show figures of other pages, which Sphinx does not follow: read them all again, from the cache.
            shutil.rmtree(folder / ".doctrees", ignore_errors=True)
        status = run_jupyter_book(out)
        if status:
            # Sphinx warns of a fault only when it reads a page: make it read them all next time, or that build would pass.
            shutil.rmtree(folder / ".doctrees", ignore_errors=True)
        rows = results_of(results, started)
    print(f"\n{'chapter':40} {'seconds':>8}  ({SETTINGS})")
    for row in rows:
        print(
            f"{row.chapter:40} {'' if row.seconds is None else format(row.seconds, '.1f'):>8}  {row.state}"
        )
    if status:
        print("\nThe build FAILED: see the messages above.", file=sys.stderr)
    else:
        print(f"\nThe book is ready: {folder / 'html' / 'index.html'}")
    return status


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m book._ext.build",
        description="Execute what is out of date, and build the site.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT,
        help="the site goes to OUT/_build/html (default: the book's folder)",
    )
    return build(parser.parse_args().out.resolve())


if __name__ == "__main__":
    sys.exit(main())
