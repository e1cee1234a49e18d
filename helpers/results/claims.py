"""A chapter's closing table: each claim of a paper, what this run found, and a verdict.

What does not change from run to run (the statement, the paper's figure, the rule that decides)
stands in ``claims.toml``; :func:`how_judged` shows the rule above the experiment. The table goes
into the page as HTML for readers and as JSON for the scorecard.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from IPython.display import HTML

from helpers.models.checks import checked, whole
from helpers.results.rules import ENOUGH, FAILS, HOLDS, IN_PART, UNDECIDED, VERDICTS, Judged
from helpers.settings import SETTINGS

# What the box says where a rule's limits were settled late; see "seen" in claims.toml.
SEEN = {
    "prompts": "so the recorded runs with other seeds count, which have other names and templates",
    "weights": "so, as no prompt enters, the recorded run of another model counts",
}
MIME = "application/vnd.steering-book.claims+json"
INVENTORY = tomllib.loads(Path(__file__).with_name("claims.toml").read_text(encoding="utf-8"))


@checked
@dataclass(frozen=True, kw_only=True)
class Claim:
    """A record of the closing table: one claim of a paper, and this run's result.

    Attributes:
        id: AS-1 … for activation scaling, OP-1 … for observable propagation.
        statement: the claim, in a sentence.
        paper: the paper's figure, as text, with its model.
        ours: this run's figure, as text.
        value: the figure as a number; None where the result is not one number.
        low, high: the 95 % interval, where there is one.
        n: sample size: prompts, fits or draws, as ``unit`` says.
        unit: what n counts.
        seeds: number of seeds.
        model: the model of this run.
        verdict: one of ``VERDICTS``, computed by the rule in ``criterion``.
        power: probability that the rule says "holds" if the paper is right; None if unknown.
        criterion: when the verdict is "holds" and, after "in part:", when it is "holds in part".
        figure: label of the figure that shows it; None links to the closing table.

    Raises:
        ValueError: no such verdict, a number that is not finite, n or seeds below 1, or "does not
            hold" by a rule without power.
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
    seeds: int = 1
    model: str = SETTINGS.model
    verdict: str
    power: float | None = None
    criterion: str
    figure: str | None = None

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.id}: verdict {self.verdict!r} is none of {VERDICTS}.")
        if self.verdict == FAILS and self.power is not None and self.power < ENOUGH:
            raise ValueError(f"{self.id}: a power of {self.power:.0%} leaves it undecided.")
        for number in (self.value, self.low, self.high, self.power):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{self.id}: {number} must be a finite number or None.")
        for name in ("n", "seeds"):
            whole(f"{self.id}: {name}", getattr(self, name))


@checked
def claim(
    id: str,
    *,
    judged: Judged | None = None,
    value: float | tuple[float, float, float] | None = None,
    **measured: Any,
) -> Claim:
    """The record of a claim: its constants from ``claims.toml``, the rest from this run.

    Args:
        id: a table of ``claims.toml``.
        judged: verdict and power, from :func:`helpers.results.rules.judge`.
        value: a number, or an interval as (value, low, high); ends that are not finite are left
            out.
        measured: the other fields of :class:`Claim`.

    Raises:
        ValueError: an unknown id; otherwise as :class:`Claim`.
    """
    if id not in INVENTORY:
        raise ValueError(f"{id} is not a claim of either paper: its constants go to claims.toml.")
    number, low, high = value if isinstance(value, tuple) else (value, None, None)
    if low is not None and not (math.isfinite(low) and math.isfinite(high)):
        low = high = None
    constants = {name: INVENTORY[id][name] for name in ("statement", "paper")}
    constants["criterion"] = INVENTORY[id]["rule"]
    if judged is not None:
        measured |= judged._asdict()
    return Claim(id=id, **constants, value=number, low=low, high=high, **measured)


@checked
def verdict(holds: bool, *, in_part: bool = False, power: float | None = None) -> str:
    """The word for a rule that was decided elsewhere; see :func:`helpers.results.rules.judge`.

    Example:
        >>> verdict(True), verdict(False, in_part=True), verdict(False), verdict(False, power=0.3)
        ('holds', 'holds in part', 'does not hold', 'undecided')
    """
    fails = UNDECIDED if power is not None and power < ENOUGH else FAILS
    return HOLDS if holds else IN_PART if in_part else fails


def how_judged(*ids: str) -> HTML:
    """The box above an experiment: statement, rule and control of its claims, as they stand in
    ``claims.toml``; the closing table repeats the rule.

    Raises:
        KeyError: an unknown id.
    """
    lines = []
    for id in ids:
        told = {part: escape(INVENTORY[id][part]) for part in ("statement", "rule", "control")}
        seen = ""
        if kind := INVENTORY[id].get("seen"):
            why = "Its limits were settled after results with the book's own seed had been seen, "
            seen = f"<br>{why}{SEEN[kind]} (scorecard, <em>Stands on</em>)."
        lines.append(
            f"<p><strong>{id}</strong> <em>{told['statement']}</em><br>Holds if: {told['rule']}."
            f"<br>Control: {told['control']}.{seen}</p>"
        )
    title = "<p class='admonition-title'>How this will be judged</p>"
    return HTML(f"<div class='admonition note how-judged'>{title}{''.join(lines)}</div>")


def sample_size(claim: Claim) -> str:
    """What a result rests on: sample size, seeds, model and power, as HTML."""
    plural = "s" * (claim.seeds > 1)
    rests = f"n = {claim.n} {escape(claim.unit)}, {claim.seeds} seed{plural}, {escape(claim.model)}"
    return rests if claim.power is None else f"{rests}; power {claim.power:.0%}"


@dataclass(frozen=True)
class ClosingTable:
    """Claims as HTML for the page, and as JSON for programs."""

    claims: tuple[Claim, ...]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str | dict]:
        records = [asdict(claim) for claim in self.claims]
        return {
            "text/html": self._repr_html_(),
            "text/plain": repr(self),
            MIME: json.loads(json.dumps(records)),  # plain numbers instead of NumPy's
        }

    def _repr_html_(self) -> str:
        titles = ("Claim", "Paper", "Ours", "Verdict", "How judged")
        head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
        rows = []
        for c in self.claims:
            rows.append(
                f"<tr id='{c.id.lower()}'><td><strong>{c.id}</strong> {escape(c.statement)}</td>"
                f"<td>{escape(c.paper)}</td>"
                f"<td>{escape(c.ours)}<br><small>{sample_size(c)}</small></td>"
                f"<td><strong>{c.verdict}</strong></td><td>{escape(c.criterion)}</td></tr>"
            )
        return (
            f"<table class='claims'><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )

    def __repr__(self) -> str:
        lines = []
        for c in self.claims:
            lines.append(f"{c.id}: {c.verdict} — paper {c.paper}; ours {c.ours} ({c.model})")
        return "\n".join(lines)


@checked
def closing_table(claims: Sequence[Claim]) -> ClosingTable:
    """The last expression of a chapter's closing cell.

    Raises:
        ValueError: no claim, or one id twice.
    """
    ids = [claim.id for claim in claims]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"a closing table needs claims with different ids, not {ids}.")
    return ClosingTable(tuple(claims))
