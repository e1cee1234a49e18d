"""Record what chapters find with another seed or model: a scorecard file and its provenance.

``make seeds SEEDS="100 200" CHAPTERS="pronouns paths"`` calls ``python -m book._ext.recorded
pronouns paths`` with ``BOOK_SEED=100`` and then with 200. Each call executes these chapters and
writes their claims to ``book/scorecards/MODEL-seed-N.csv``; what other chapters have there stays.
The file beside it, ``.json``, says what ran: settings, machine, and for every chapter the date, the
time and a digest of its code. Where results have moved to another chapter since, ``ran_in`` names
the one whose run these are.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from book._ext.cache import device_name, notebooks, sources_of
from book._ext.execute import Outcome, execute_all
from book._ext.kernels import ROOT
from book._ext.scorecard import COLUMNS, OTHER_RUNS, Row, as_csv, claims_in
from helpers.results.claims import INVENTORY, Claim
from helpers.results.records import machine, read_record, record
from helpers.runs.code import files_digest, files_of
from helpers.settings import SETTINGS, Settings

FOLDER = ROOT / "book" / OTHER_RUNS


def file_of(settings: Settings = SETTINGS, folder: Path = FOLDER) -> Path:
    """Where a run's claims are recorded.

    Raises:
        ValueError: the profile is ``smoke``, or it is the run that the book's own pages show.
    """
    if settings.profile == "smoke":
        raise ValueError("the profile smoke judges nothing: set BOOK_PROFILE=default.")
    if (settings.model, settings.seed) == (Settings.model, Settings.seed):
        raise ValueError("this is the run of the book's own pages: set BOOK_SEED or BOOK_MODEL.")
    # A hub's name has its owner in front, which would be a folder that no page reads.
    return folder / f"{settings.model.replace('/', '--')}-seed-{settings.seed}.csv"


def code_digest(notebook: Path) -> str:
    """Of a chapter's code cells and of the files that they use."""
    sources = [source for source, _ in sources_of(notebook)]
    files = files_digest(files_of(sources_of(notebook), ROOT), ROOT)
    return hashlib.sha256("\0".join([*sources, files]).encode()).hexdigest()[:12]


def merged(
    claims: Mapping[str, Sequence[Claim]], former: Sequence[Mapping[str, str]]
) -> list[dict[str, str]]:
    """The rows of the chapters that ran, and of all others those that were there.

    Args:
        claims: by page, of the chapters that ran.
        former: rows of the file as it was.
    """
    pages = {f"{page}.html" for page in claims}
    rows = {row["id"]: dict(row) for row in former if row["page"] not in pages}
    for page, found in claims.items():
        new = [Row(claim.id, claim, page) for claim in found]
        rows |= {row["id"]: row for row in csv.DictReader(io.StringIO(as_csv(new)))}
    return [rows[id] for id in INVENTORY if id in rows]


def write(path: Path, outcomes: Sequence[Outcome], codes: Mapping[Path, str]) -> None:
    """Record the claims of executed chapters, and how they were executed."""
    import torch  # takes seconds to import

    former, chapters, claims = [], {}, {}
    if path.exists():
        table, origin = read_record(path)
        former = table.astype(str).to_dict("records")
        chapters = origin["chapters"]
    today = datetime.now(UTC).date().isoformat()
    for outcome in outcomes:
        page = outcome.path.relative_to(ROOT / "book").with_suffix("").as_posix()
        claims[page] = claims_in(outcome.notebook)
        ran = {"date": today, "seconds": round(outcome.seconds), "code": codes[outcome.path]}
        chapters[page] = ran | {"profile": SETTINGS.profile}
    origin = {"model": SETTINGS.model, "seed": SETTINGS.seed}
    origin |= machine(torch.device(device_name())) | {"chapters": dict(sorted(chapters.items()))}
    record(pd.DataFrame(merged(claims, former), columns=list(COLUMNS)), path, origin)


def run(names: Sequence[str]) -> int:
    """Execute chapters, one after the other, and record each as soon as it is done.

    Returns:
        The exit status: 1 if one failed or there is no such chapter.

    Raises:
        ValueError, OSError: the file is there and is not what was recorded.
    """
    path, known = file_of(), {notebook.stem: notebook for notebook in notebooks()}
    if unknown := [name for name in names if name not in known]:
        print(f"There is no chapter {', '.join(unknown)}; use {', '.join(known)}.", file=sys.stderr)
        return 1
    if silent := [name for name in names if name not in with_claims()]:
        print(
            f"{', '.join(silent)} has no claims; use {', '.join(with_claims())}.", file=sys.stderr
        )
        return 1
    paths = [known[name] for name in names]
    codes = {notebook: code_digest(notebook) for notebook in paths}
    FOLDER.mkdir(exist_ok=True)
    if path.exists():  # found damaged only afterwards, it would cost what was run
        read_record(path)
    print(f"{SETTINGS}, into {path.relative_to(ROOT)}", flush=True)

    def done(outcome: Outcome) -> None:
        if outcome.error:
            print(f"{outcome.path.stem} FAILED in {outcome.error}", file=sys.stderr)
        else:
            write(path, [outcome], codes)

    return int(any(outcome.error for outcome in execute_all(paths, 1, done)))


def with_claims() -> list[str]:
    """The chapters whose source has a closing table."""
    found = []
    for notebook in notebooks():
        cells = nbformat.read(notebook, as_version=4).cells
        if any("closing_table([" in cell.source for cell in cells):
            found.append(notebook.stem)
    return found


def main(arguments: Sequence[str] | None = None) -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m book._ext.recorded",
        description="Execute chapters and record their claims in book/scorecards.",
    )
    parser.add_argument("chapters", nargs="*", help="for example pareto; all if none is named")
    given = parser.parse_args(arguments)
    try:
        return run(given.chapters or with_claims())
    except (ValueError, OSError) as error:
        return f"Error: {error}"


if __name__ == "__main__":
    sys.exit(main())
