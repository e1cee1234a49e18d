"""How long the model takes to load, and what the chapters took when they were last executed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from jupyter_cache import get_cache

from benchmarks.timing import timed
from helpers.build import results_of
from helpers.models import load_model


def loads(device: torch.device) -> list[dict[str, Any]]:
    """Loading in a new process, Python and imports included, and in this one, where all that is there already."""
    command = [sys.executable, "-c", "from helpers.models import load_model; load_model()"]
    cold = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), device)
    warm = timed(load_model, device)
    return [
        {"variant": "a new process", "seconds": cold.seconds, "repeats": 1, "note": "imports included; from the disk or its cache"},
        {"variant": "the same process again", "seconds": warm.seconds, "cpu_seconds": warm.cpu, "repeats": 1},
    ]


def chapters(book: Path) -> list[dict[str, Any]]:
    """Each chapter's time as the build under ``book`` has it, and their sum; a note where it has none.

    Args:
        book: a folder that ``python -m helpers.build --out`` built into.
    """
    folder = book / "_build" / ".jupyter_cache"
    results = results_of(get_cache(folder), datetime.now(UTC)) if folder.is_dir() else []
    rows = [{"variant": result.chapter, "seconds": result.seconds} for result in results if result.seconds is not None]
    if not rows:
        return [{"variant": "all", "note": "skipped: no chapter has been executed; run make book first"}]
    total = sum(row["seconds"] for row in rows)
    return [*rows, {"variant": "all", "seconds": total, "note": f"{len(rows)} of {len(results)}, as the last build executed them"}]
