"""Which executed chapters are up to date.

Executed notebooks lie in jupyter-book's own cache, which knows a notebook by its code cells. It
sees neither the modules that a notebook imports nor the settings it runs under. So every result is
stored with a key, computed from all that the notebook depends on (``helpers.runs.code``), and is
removed when the key is another one. jupyter-book then finds every chapter in its cache.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.cache.db import NbCacheRecord
from sphinx_external_toc.parsing import parse_toc_yaml

from book._ext.kernels import ROOT
from book._ext.timings import seconds_of
from helpers.models.packed import PACKED
from helpers.runs.code import files_digest, files_of
from helpers.settings import SETTINGS


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the table of contents, in its order."""
    pages = [root / "book" / f"{page}.ipynb" for page in parse_toc_yaml(root / "book" / "_toc.yml")]
    return [path for path in pages if path.is_file()]


def sources_of(notebook: Path) -> list[tuple[str, Path]]:
    """The Python of each code cell, with magics turned into calls, and the folder it runs in.

    Cell by cell, so that one that is no Python does not hide what the others import.
    """
    sources = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            sources.append(cell.source)
            if cell.source.startswith("%%"):  # what %%time or %%capture runs
                sources.append(cell.source.partition("\n")[2])
    transform = TransformerManager().transform_cell
    return [(transform(source), notebook.parent) for source in sources]


@functools.cache
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
    facts = [SETTINGS.model, device_name(), SETTINGS.profile, str(SETTINGS.seed), SETTINGS.fits]
    facts += [PACKED[SETTINGS.model].sha256] if SETTINGS.model in PACKED else []
    files = files_of(sources_of(notebook), root, known)
    facts += [sys.version, files_digest({*files, root / "constraints.txt"}, root)]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def record_of(results: JupyterCacheAbstract, notebook: Path) -> NbCacheRecord | None:
    """The cached execution that jupyter-book would show for this notebook, if there is one."""
    try:
        return results.match_cache_notebook(nbformat.read(notebook, as_version=4))
    except KeyError:
        return None


def stale(results: JupyterCacheAbstract, root: Path = ROOT) -> dict[Path, str]:
    """Remove results that are out of date; the notebooks that have to be executed, and their keys.

    The keys are those of now: what is edited while a notebook runs makes its result stale.
    """
    waiting, known = {}, {}
    for path in notebooks(root):
        key, record = key_of(path, root, known), record_of(results, path)
        if record is not None and (record.data or {}).get("key") == key:
            continue
        if record is not None:
            results.remove_cache(record.pk)
        waiting[path] = key
    return waiting


def keep(
    results: JupyterCacheAbstract,
    path: Path,
    notebook: nbformat.NotebookNode,
    seconds: float,
    key: str,
) -> None:
    """Store an executed notebook where jupyter-book looks for it.

    Args:
        results: jupyter-book's cache.
        path: the notebook as it was executed.
        notebook: with its outputs.
        seconds: that it took.
        key: of the time before it was executed (:func:`key_of`).
    """
    data = {"execution_seconds": seconds, "key": key}
    data["cell_seconds"] = [seconds_of(cell) for cell in notebook.cells]
    # The cache's own key covers the metadata of the notebook and its cells, which executing it
    # changed: put back what is on disk.
    saved = nbformat.read(path, as_version=4)
    notebook.metadata = saved.metadata
    for cell, before in zip(notebook.cells, saved.cells):
        cell.metadata = before.metadata
    bundle = CacheBundleIn(notebook, str(path), data=data)
    results.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def executions(results: JupyterCacheAbstract) -> str:
    """What tells the present executions of all chapters from earlier ones."""
    records = [record_of(results, path) for path in notebooks()]
    return "\n".join(f"{record.hashkey} {record.created}" for record in records if record)
