"""The closing table of a chapter: what a paper claims, what this run found, and a verdict, for people and for programs.

The scorecard reads the same records out of the executed notebooks, so a chapter states each result once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape

MIME = "application/vnd.steering-book.claims+json"
VERDICTS = ("holds", "holds in part", "does not hold")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of a paper, and what became of it.

    Attributes:
        id: ``AS-1`` … for activation scaling, ``OP-1`` … for observable propagation.
        statement: the claim, in a sentence.
        paper: the paper's figure, as text, with its model.
        ours: this run's figure, as text.
        value, low, high: the figure with its 95 % interval; None where the result is not one number.
        n: number of prompts, locations or draws behind it; say which in ``unit``.
        unit: what n counts.
        seeds: number of seeds behind it.
        model: the model it was run on.
        verdict: one of ``VERDICTS``, computed from the run by the rule in ``criterion``.
        criterion: when the verdict would be "holds".
        figure: the name of the figure that shows it, for the scorecard to link to; None for the closing table.
    """

    id: str
    statement: str
    paper: str
    ours: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int
    unit: str
    seeds: int
    model: str
    verdict: str
    criterion: str
    figure: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(AS|OP)-\d+", self.id):
            raise ValueError(f"claim id {self.id!r} must look like AS-1 or OP-1.")
        if self.verdict not in VERDICTS:
            raise ValueError(
                f"{self.id}: verdict {self.verdict!r} must be one of {', '.join(VERDICTS)}."
            )
        if any(
            number is not None and not math.isfinite(number)
            for number in (self.value, self.low, self.high)
        ):
            raise ValueError(f"{self.id}: value, low and high must be finite numbers or None.")
        if self.n < 1 or self.seeds < 1:
            raise ValueError(
                f"{self.id}: n = {self.n} and seeds = {self.seeds} must be at least 1."
            )


def verdict(holds: bool, *, in_part: bool = False) -> str:
    """The word for a claim that holds, else holds in part, else does not.

    Example:
        >>> verdict(True), verdict(False, in_part=True), verdict(False)
        ('holds', 'holds in part', 'does not hold')
    """
    return VERDICTS[0] if holds else VERDICTS[1] if in_part else VERDICTS[2]


@dataclass(frozen=True)
class ClosingTable:
    """Claims as a table in the page and as JSON beside it."""

    claims: tuple[Claim, ...]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str | dict]:
        records = [asdict(claim) for claim in self.claims]
        return {
            "text/html": self._repr_html_(),
            "text/plain": repr(self),
            MIME: json.loads(json.dumps(records)),
        }

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th scope='col'>{title}</th>"
            for title in ("Claim", "Paper", "Ours", "Verdict", "How judged")
        )
        rows = "".join(
            f"<tr id='{c.id.lower()}'><td><strong>{c.id}</strong> {escape(c.statement)}</td><td>{escape(c.paper)}</td>"
            f"<td>{escape(c.ours)}<br><small>n = {c.n} {escape(c.unit)}, {c.seeds} seed{'s' * (c.seeds > 1)}, "
            f"{escape(c.model)}</small></td><td><strong>{c.verdict}</strong></td><td>{escape(c.criterion)}</td></tr>"
            for c in self.claims
        )
        return f"<table class='claims'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def __repr__(self) -> str:
        return "\n".join(
            f"{c.id}: {c.verdict} — paper {c.paper}; ours {c.ours} ({c.model})" for c in self.claims
        )


def closing_table(claims: Sequence[Claim]) -> ClosingTable:
    """A chapter's claims, to be the last expression of a cell.

    Raises:
        ValueError: no claim, or one id twice.
    """
    ids = [claim.id for claim in claims]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"a closing table needs claims with different ids, not {ids}.")
    return ClosingTable(tuple(claims))
