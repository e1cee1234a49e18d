"""How long the model takes to load, and what the chapters took when they were last executed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from jupyter_cache import get_cache
from nbformat import NotebookNode

from benchmarks.timing import timed
from book._ext.build import notebooks, record_of
from helpers.models.load import load_model


def loads(device: torch.device) -> list[dict[str, Any]]:
    """Loading in a new process, Python and imports included, and in this one, where all that is there already."""
    command = [sys.executable, "-c", "from helpers.models.load import load_model; load_model()"]
    cold = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), device)
    warm = timed(load_model, device)
    return [
        {
            "variant": "a new process",
            "seconds": cold.seconds,
            "repeats": 1,
            "note": "imports included; from the disk or its cache",
        },
        {
            "variant": "the same process again",
            "seconds": warm.seconds,
            "cpu_seconds": warm.cpu,
            "repeats": 1,
        },
    ]


def chapters(book: Path) -> list[dict[str, Any]]:
    """Each chapter's time and most memory as the build under ``book`` has them, and the whole; a note where it has none.

    Args:
        book: a folder that ``python -m book._ext.build --out`` built into.
    """
    folder = book / "_build" / ".jupyter_cache"
    cache = get_cache(folder) if folder.is_dir() else None
    rows = []
    for path in notebooks() if cache is not None else ():
        if (record := record_of(cache, path)) is not None:
            run = run_of(cache.get_cache_bundle(record.pk).nb)
            rows.append(
                {
                    "variant": path.stem,
                    "seconds": record.data["execution_seconds"],
                    "peak_gb": run.get("peak_gb"),
                }
            )
    if not rows:
        return [
            {"variant": "all", "note": "skipped: no chapter has been executed; run make book first"}
        ]
    total, peak = sum(row["seconds"] for row in rows), max((row["peak_gb"] or 0 for row in rows))
    note = f"{len(rows)} of {len(notebooks())}, as the last build executed them"
    return [*rows, {"variant": "all", "seconds": total, "peak_gb": peak or None, "note": note}]


def run_of(notebook: NotebookNode) -> dict[str, float]:
    """What an executed chapter's colophon (``helpers.results.glue``) says of its run; nothing where it has none."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pages = [output.get("metadata", {}).get("text/html", {}) for output in outputs]
    return next((page["run"] for page in pages if "run" in page), {})


def tests(book: Path) -> list[dict[str, Any]]:
    """How long ``make test`` took when it last ran in ``book``; a note where it did not."""
    report = book / "_build" / "tests.xml"
    if not report.is_file():
        return [{"variant": "make test", "note": "skipped: it has not run here"}]
    suite = ElementTree.parse(report).getroot().find("testsuite")
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    return [
        {
            "variant": "make test",
            "seconds": float(suite.get("time")),
            "note": f"{suite.get('tests')} tests, {failed} failed",
        }
    ]
