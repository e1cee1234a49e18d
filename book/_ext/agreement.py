"""What a verdict stands on: other seeds and models that judged by the same rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from helpers.results.claims import INVENTORY, VERDICTS, Claim

Table = Mapping[str, Mapping[str, str]]  # another run's scorecard: its columns by id


def same_rule(id: str, table: Table) -> bool:
    """Whether another run judged a result, and by the rule of now."""
    there = table.get(id, {})
    return there.get("verdict") in VERDICTS and there["criterion"] == INVENTORY[id]["rule"]


class Standing(NamedTuple):
    """What a verdict stands on: this run, and the recorded ones that judged by the same rule.

    Attributes:
        seeds: of the model with most of them.
        models: number of models.
        same, runs: how many runs came to this run's verdict, and how many there are.
        fresh_same, fresh: the same for runs whose data nobody had seen when the rule was settled;
            None where it was settled before any result.
    """

    seeds: int
    models: int
    same: int
    runs: int
    fresh_same: int | None = None
    fresh: int | None = None

    def __str__(self) -> str:
        text = f"{_count(self.seeds, 'seed')}, {_count(self.models, 'model')}"
        if self.fresh == 0:
            return f"{text}; not yet judged on fresh data"
        if self.fresh is not None:
            there = f"in {self.fresh_same} of {_count(self.fresh, 'run')}"
            return f"{text}; on fresh data the same verdict {there}"
        agreed = f"; same verdict in {self.same} of {self.runs} runs"
        return text + agreed * (self.runs > 1)


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"


def stands_on(claim: Claim | None, others: Mapping[str, Table]) -> Standing | None:
    """How many runs, seeds and models have a result, this run's included; None without one."""
    if claim is None:
        return None
    mine, elsewhere = (claim.model, claim.verdict), []
    for table in others.values():
        if same_rule(claim.id, table):
            elsewhere.append((table[claim.id]["model"], table[claim.id]["verdict"]))
    runs, fresh = [mine, *elsewhere], {}
    models = Counter(model for model, _ in runs)
    if seen := INVENTORY[claim.id].get("seen"):
        # Another seed has other prompts, but the same weights.
        new = [run for run in elsewhere if seen == "prompts" or run[0] != claim.model]
        same = sum(verdict == claim.verdict for _, verdict in new)
        fresh = {"fresh_same": same, "fresh": len(new)}
    same = sum(verdict == claim.verdict for _, verdict in runs)
    return Standing(max(models.values()), len(models), same, len(runs), **fresh)


def compare(claims: Sequence[Claim | None], table: Table) -> tuple[int, list[tuple[str, str, str]]]:
    """Agreement with another run, over the results that both judge by the same rule.

    Returns:
        The number of equal verdicts; id, verdict there and verdict here of the others.
    """
    same, differing = 0, []
    for claim in claims:
        if claim is None or not same_rule(claim.id, table):
            continue
        if (there := table[claim.id]["verdict"]) == claim.verdict:
            same += 1
        else:
            differing.append((claim.id, there, claim.verdict))
    return same, differing


def differing(claim: Claim | None, others: Mapping[str, Table]) -> dict[str, list[str]]:
    """Runs that came to another verdict by the same rule, by that verdict."""
    runs: dict[str, list[str]] = {}
    for run, table in others.items():
        if claim and same_rule(claim.id, table):
            if (there := table[claim.id]["verdict"]) != claim.verdict:
                runs.setdefault(there, []).append(run)
    return runs
