"""Run on one GPU what needs one (``make gpu``): tests, the Pareto grid, a large model, a chapter.

The table is written after every row, most important steps first, so that a run that is killed
leaves what it has. A step that fails is a row with its error; one that would exceed the time budget
is skipped, with a row that says so.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from xml.etree import ElementTree

import nbformat
import pandas as pd
import torch
from nbclient import NotebookClient

from benchmarks.bench import timed
from benchmarks.gpu_models import ROOT, Row, large, the_grid
from helpers.models.load import resolve_device
from helpers.results.records import machine, read_record, record
from helpers.settings import SETTINGS

COLUMNS = ["step", "what", "seconds", "peak_gb", "ratio", "difference", "note"]
SECONDS = {
    "tests": 120,
    "large": 60,
    "grid": 120,
    "embedded": 120,
    "chapter": 60,
}  # what each step may well take


class OutOfTime(BaseException):
    """The budget is spent. No Exception, because a sweep goes on after those."""


@contextmanager
def ends_after(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block when the time is up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime("the budget of time is spent")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# The steps: each yields its rows as it has them


def tests(
    given: argparse.Namespace, marks: str = "gpu and not integration", name: str = "tests"
) -> Iterator[Row]:
    """Run the tests marked ``gpu`` in a process; its output is kept beside the table."""
    report = Path(tempfile.mkdtemp()) / "report.xml"
    # Without the options of pyproject.toml: the machine need not have what they are for.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "-m",
        marks,
        "--durations=10",
        "-ra",
    ]
    command += [f"--junitxml={report}", "-k", given.keyword, "tests/gpu"]
    command += ["--gpu-stand-in"] if given.device.type == "cpu" else []
    with (given.out / f"{name}.txt").open("w") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, timeout=given.left())
    suite = next(ElementTree.parse(report).iter("testsuite")).attrib
    total, skipped, failed = (int(suite[count]) for count in ("tests", "skipped", "failures"))
    failed += int(suite["errors"])
    note = f"{total - failed - skipped} passed, {failed} failed, {skipped} skipped"
    yield {"what": f"tests marked {marks}", "seconds": float(suite["time"]), "note": note}


def chapter(given: argparse.Namespace) -> Iterator[Row]:
    """A chapter as it stands, every cell, in the profile ``paper``, in a kernel of its own."""
    profile = "smoke" if given.small else "paper"
    for name in given.chapters:
        (path,) = (ROOT / "book").glob(f"*/{name}.ipynb")
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            places, note = (
                [str(ROOT), os.environ.get("PYTHONPATH", "")],
                f"{len(notebook.cells)} cells",
            )
            if find_spec("myst_nb") is None:  # it only keeps numbers for the page
                Path(folder, "myst_nb.py").write_text("def glue(*given, **how): pass\n")
                places.insert(1, folder)
                note += "; numbers for the page are not kept, for lack of myst_nb"
            told = {
                "BOOK_PROFILE": profile,
                "BOOK_MODEL": "smollm2",
                "BOOK_DEVICE": given.device.type,
                "BOOK_PROGRESS": "off",
            }
            environment = os.environ | told | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
            where = {"metadata": {"path": str(path.parent)}}
            client = NotebookClient(
                notebook, timeout=int(given.left()), kernel_name="python3", resources=where
            )
            run = timed(partial(client.execute, env=environment), torch.device("cpu"))
        yield {"what": f"{name}, profile {profile}", "seconds": run.seconds, "note": note}


STEPS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "tests": tests,
    "large": large,
    "grid": the_grid,
    "embedded": partial(tests, marks="gpu and integration", name="embedded"),
    "chapter": chapter,
}


# The run


def run_step(name: str, given: argparse.Namespace) -> Iterator[Row]:
    """The rows of a step, then one more if it fails or runs out of time."""
    if given.left() < (1 if given.small else SECONDS[name]):
        left = max(0, given.left())
        yield {
            "what": name,
            "note": f"skipped: it takes up to {SECONDS[name]} s, and "
            f"{left:.0f} s of the budget are left",
        }
        return
    start = time.perf_counter()
    try:
        rows = STEPS[name](given)
        while True:
            with ends_after(given.left()):  # not while a row is written
                row = next(rows, None)
            if row is None:
                break
            yield row
    except (Exception, OutOfTime) as error:
        traceback.print_exc()
        said = re.sub(r"\x1b\[\d*(;\d+)*m", "", str(error)).strip()
        yield {
            "what": name,
            "seconds": time.perf_counter() - start,
            "note": f"failed: {type(error).__name__}: {said[-300:]}",
        }
    gc.collect()  # models hold on to themselves
    if given.device.type == "cuda":
        torch.cuda.empty_cache()


def write(rows: list[Row], given: argparse.Namespace) -> None:
    """The table so far, with what an earlier run in the same folder has of other steps."""
    driver = answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    origin = machine(given.device) | {
        "settings": {"small": given.small, "commit": given.commit, "driver": driver}
    }
    # Steps of an earlier run that this one leaves alone keep their rows.
    done = {row["step"] for row in rows}
    kept = [row for row in given.earlier if row["step"] not in done]
    origin["wall_seconds"] = round(
        given.budget - given.left(), 1
    )  # not the sum: one row is extrapolated
    record(
        pd.DataFrame([*kept, *rows], columns=COLUMNS).fillna({"note": ""}),
        given.out / "gpu.csv",
        origin,
    )


@cache
def answer(*command: str) -> str:
    """What a command prints, empty where there is none of its name."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="What a GPU is to show, in one go."
    )
    parser.add_argument("--out", type=Path, default=Path("_build/gpu"), help="folder of the tables")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--budget", type=float, default=480, help="seconds that all of it may take")
    parser.add_argument("--chapters", nargs="+", default=["errata"])
    parser.add_argument(
        "--keyword", default="", help="only the tests whose names have it, as pytest's -k"
    )
    parser.add_argument(
        "--commit",
        default=answer("git", "rev-parse", "HEAD"),
        help="which the tree is of, where git cannot say",
    )
    parser.add_argument(
        "--small", action="store_true", help="least sizes, to see that all of it runs; on a CPU too"
    )
    given = parser.parse_args(arguments)

    # Refuse what cannot run; then start the clock.
    given.device = resolve_device(SETTINGS.device)
    if given.device.type != "cuda" and not given.small:
        parser.error("there is no GPU here; --small shows on a CPU that all of it runs")
    start = time.perf_counter()
    given.left = lambda: given.budget - (time.perf_counter() - start)
    given.out.mkdir(parents=True, exist_ok=True)
    given.earlier = (
        read_record(given.out / "gpu.csv")[0].to_dict("records")
        if (given.out / "gpu.csv").exists()
        else []
    )
    # Each row is written at once, so that a run that is cut off keeps what it has.
    rows: list[Row] = []
    for name in given.steps:
        for row in run_step(name, given):
            rows.append({"step": name, **row})
            write(rows, given)
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    print(f"Recorded in {given.out / 'gpu.csv'}, {given.budget - given.left():.0f} s")
    failed = [row for row in rows if re.search(r"^failed|[1-9]\d* failed", row["note"])]
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
