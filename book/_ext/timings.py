"""How long each cell of the chapters ran: ``_build/timings.csv``."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from nbformat import NotebookNode

from book._ext.kernels import ROOT

RECORDED = ROOT / "book" / "results" / "bench-smollm2.csv"  # times of chapters, for a first build


def seconds_of(cell: NotebookNode) -> float | None:
    """How long a cell ran, from the times that nbclient recorded; None if it recorded none."""
    times = cell.metadata.get("execution", {})
    start = times.get("iopub.status.busy") or times.get("iopub.execute_input")
    end = times.get("iopub.status.idle") or times.get("shell.execute_reply")
    if not start or not end:
        return None
    start, end = (datetime.fromisoformat(time.replace("Z", "+00:00")) for time in (start, end))
    return (end - start).total_seconds()


def write_timings(cells: Mapping[str, Sequence[float | None]], file: Path) -> None:
    """A table of chapter, cell number (from 1) and seconds."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened, lineterminator="\n")
        table.writerow(["chapter", "cell", "seconds"])
        for name, times in cells.items():
            for number, seconds in enumerate(times, start=1):
                if seconds is not None:
                    table.writerow([name, number, f"{seconds:.3f}"])


def longest_first(paths: Iterable[Path], times: Mapping[str, float]) -> list[Path]:
    """Notebooks in the order to start them: by their last times, those without any first."""
    return sorted(paths, key=lambda path: -times.get(path.stem, float("inf")))


def last_times(timings: Path, recorded: Path = RECORDED) -> dict[str, float]:
    """Seconds of each chapter when it last ran here, or else when benchmarks were recorded."""
    totals: dict[str, float] = {}
    for file, name in ((recorded, "variant"), (timings, "chapter")):
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        found: dict[str, float] = {}
        for row in csv.DictReader(lines):
            if row.get("case", "chapters") == "chapters":
                found[row[name]] = found.get(row[name], 0.0) + float(row["seconds"])
        totals |= found
    return totals
