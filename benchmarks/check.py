"""Compare a recorded benchmark with what the book aims at: ``python -m benchmarks.check [bench.csv]``.

No test does this: times depend on the machine and on what else it does.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.results.records import read_record


@dataclass(frozen=True)
class Target:
    """A ratio that a variant of some cases should not be above, or below.

    Attributes:
        says: in words.
        case: the start of the cases' names.
        variant, column: which number of the table.
        bound: the number; ``least`` says whether it is a lower bound.
        difference: largest allowed ``difference`` from the first variant's numbers, where it matters.
    """

    says: str
    case: str
    variant: str
    column: str
    bound: float
    least: bool
    difference: float = math.inf
    gpu: bool = False

    def judge(self, table: pd.DataFrame) -> list[dict[str, object]]:
        """For each case that has a number: what it is, and whether it is within the bound."""
        mine = table[
            table["case"].str.startswith(self.case) & (table["variant"] == self.variant)
        ].dropna(subset=self.column)
        return [
            {
                "target": self.says,
                "case": row["case"],
                "measured": row[self.column],
                "difference": row["difference"],
                "met": bool(
                    (
                        row[self.column] >= self.bound
                        if self.least
                        else row[self.column] <= self.bound
                    )
                    and not row["difference"] > self.difference
                ),
            }
            for row in mine.to_dict("records")
        ]


TOLERANCE = (
    0.05  # nats of E0 and F, and share of the parameters of M0, that reduced precision may cost
)
TARGETS = (
    Target(
        "a fit within 1.25 of the arithmetic floor", "fit", "ours", "ratio_floor", 1.25, least=False
    ),
    Target(
        "a fit at least 5 times as fast as the plain loop",
        "fit",
        "ours",
        "ratio_plain",
        5,
        least=True,
    ),
    Target(
        f"8 times in reduced precision, E0, F and M0 within {TOLERANCE}",
        "fit",
        "ours, bfloat16",
        "ratio_plain",
        8,
        True,
        TOLERANCE,
    ),
    Target(
        "on a GPU the grid at least 50 times as fast as the plain loop",
        "grid",
        "ours, together",
        "ratio_plain",
        50,
        True,
        gpu=True,
    ),
)


def judge(table: pd.DataFrame, *, gpu: bool) -> pd.DataFrame:
    """Every target that the table has numbers for, a row a case."""
    rows = [row for target in TARGETS if target.gpu in (False, gpu) for row in target.judge(table)]
    return pd.DataFrame(rows, columns=["target", "case", "measured", "difference", "met"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Say which targets a table meets; the exit status is 1 when one is missed or nothing can be judged."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.check",
        description="Compare a recorded benchmark with its targets.",
    )
    parser.add_argument("table", type=Path, nargs="?", default=Path("_build/bench/bench.csv"))
    given = parser.parse_args(arguments)
    if not given.table.is_file():
        print(f"There is no {given.table} yet: run make bench first.", file=sys.stderr)
        return 1
    table, origin = read_record(given.table)
    judged = judge(table, gpu=origin["settings"]["gpu"])
    print(f"{given.table}: {origin['date']}, {origin['device']}, {origin['threads']} threads")
    for row in judged.to_dict("records"):
        print(
            f"{'met   ' if row['met'] else 'MISSED'} {row['measured']:8.2f}  {row['case']}: {row['target']}"
        )
    if judged.empty:
        print("The table has none of the cases that there are targets for.", file=sys.stderr)
    return int(judged.empty or not judged["met"].all())


if __name__ == "__main__":
    sys.exit(main())
