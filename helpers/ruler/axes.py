"""The ruler's axes: what an edit gains on prompts, and what it costs elsewhere, at one strength.

Strengths are chosen by one rule for all: the β at which an edit costs a given divergence on neutral
texts (:func:`strength_for`). So edits are compared at equal damage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import log, sqrt
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.objective import divergence, logit_diff, swap_gap
from helpers.models.checks import checked, real, rows
from helpers.models.hooks import hooked
from helpers.models.resume import Run
from helpers.models.run import unembed
from helpers.prompts.prompts import Prompts, join
from helpers.ruler.edits import Edit
from helpers.ruler.tasks import Ruled

BUDGETS = (0.03, 0.1, 0.3)  # nats of divergence on neutral texts; edits are compared at MAIN
MAIN = 0.1
CLOSE = 0.1  # a strength whose divergence is this near to the budget, as a share, will do
TRIES = 8
N_POS = 20  # tokens of a neutral prompt
N_CHOOSE, N_REPORT = 12, 16  # neutral texts on which strengths are chosen; on which damage is told


@dataclass(frozen=True)
class Bench:
    """Prompts of one length that are run again and again with edits at their last token."""

    model: TransformerBridge
    prompts: Prompts

    @cached_property
    def run(self) -> Run:
        """The model left alone."""
        return Run.of(self.model, self.prompts.tokens)

    @cached_property
    def base(self) -> Float[Tensor, "prompt d_vocab"]:
        """Logits of the model left alone."""
        return unembed(self.model, self.run.ends)

    @torch.no_grad()
    def both(self, edit: Edit, betas: Sequence[float]) -> Float[Tensor, "beta 2 prompt d_vocab"]:
        """Logits at every β and at −β.

        Raises:
            TypeError, ValueError: an edit that no method made, or strengths that are no numbers.
        """
        if not hasattr(edit, "logits"):
            raise TypeError(f"edit = {edit!r} must be an Edit, such as a method makes.")
        if isinstance(betas, str) or not hasattr(betas, "__len__"):
            raise TypeError(f"betas = {betas!r} must be a list of numbers.")
        signed = [sign * real("beta", beta) for beta in betas for sign in (1, -1)]
        logits = edit.logits(self.model, self.prompts, self.run, signed)
        return logits.unflatten(0, (len(betas), 2))

    def damage(self, edit: Edit, beta: float) -> float:
        """Divergence of the steered from the base distribution, mean of both signs, in nats."""
        return divergence(self.both(edit, [beta])[0], self.base).mean().item()


class Benches:
    """All prompts of a task, ready to run.

    Attributes:
        own: ``n_train`` training prompts, then the test prompts.
        transfer: test prompts in the other template.
        choose: neutral texts on which strengths are chosen.
        neutral: the same, and then those on which damage is reported.
        following: the token that follows each of the latter.
    """

    @checked
    def __init__(self, model: TransformerBridge, task: Ruled) -> None:
        choose, _ = task.neutral(N_CHOOSE, N_POS, held_out=False)
        report, self.following = task.neutral(N_REPORT, N_POS, held_out=True)
        self.n_train = len(task.train)
        self.own, self.transfer = (
            Bench(model, join([task.train, task.test])),
            Bench(model, task.transfer),
        )
        self.choose, self.neutral = Bench(model, choose), Bench(model, join([choose, report]))
        self.train = Bench(model, task.train)


def strength_for(bench: Bench, edit: Edit, budget: float, start: float = 1.0) -> float:
    """The β > 0 at which an edit's damage is the budget, within ``CLOSE``.

    Damage grows with β² where β is small, which gives the next try; between two tries on both sides
    of the budget, the next is interpolated on logarithmic scales.

    Returns:
        The best of ``TRIES`` tries where none is close enough.

    Raises:
        TypeError, ValueError: a budget or a start that is not positive; damage that is not finite.
    """
    for name, value in (("budget", budget), ("start", start)):
        real(name, value, 1e-12)
    beta, tried = float(start), {}
    for _ in range(TRIES):
        damage = real(f"the damage at β = {beta:.3g}", bench.damage(edit, beta))
        tried[beta] = max(damage, 1e-9)
        if abs(tried[beta] / budget - 1) <= CLOSE:
            break
        low = max((one for one in tried if tried[one] < budget), default=0)
        high = min((one for one in tried if tried[one] > budget), default=0)
        if 0 < low < high:
            share = log(budget / tried[low]) / log(tried[high] / tried[low])
            beta = low * (high / low) ** min(max(share, 0.1), 0.9)
        else:
            beta = beta * min(max(sqrt(budget / tried[beta]), 0.05), 20)
    return min(tried, key=lambda one: abs(log(tried[one] / budget)))


@checked
def gained(
    both: Float[Tensor, "2 prompt d_vocab"], base: Float[Tensor, "prompt d_vocab"], prompts: Prompts
) -> dict[str, Any]:
    """What an edit does to the answers of prompts, from their logits at β and −β, and at 0.

    Returns:
        ``E0``, mean of E_0 (Eq. 6); ``gaps``, that of each prompt; ``E0_base``, without an edit;
        ``swapped``, share of prompts that both signs swap; ``F`` (Eq. 7); ``wrong_way``, share of
        prompts and signs whose logit difference moves against what was meant.
    """
    if len(prompts) != len(base):
        raise ValueError(f"there are logits of {len(base)} prompts, and {len(prompts)} prompts.")
    answers = prompts.correct, prompts.wrong
    (up, down), before = logit_diff(both, *answers), logit_diff(base, *answers)
    gaps = swap_gap(up, down)
    return {
        "E0": gaps.mean().item(),
        "gaps": [round(gap, 4) for gap in gaps.tolist()],
        "E0_base": swap_gap(before, before).mean().item(),
        "swapped": ((up > 0) & (down < 0)).float().mean().item(),
        "F": -divergence(both, base).sum(0).mean().item(),
        "wrong_way": torch.stack([up < before, down > before]).float().mean().item(),
    }


@checked
def damaged(
    both: Float[Tensor, "2 text d_vocab"],
    base: Float[Tensor, "text d_vocab"],
    following: Int[Tensor, " text"],
) -> dict[str, float]:
    """What an edit does to neutral texts: ``kl`` as :meth:`Bench.damage`, and ``ll``, by how much
    the log-likelihood of the token that follows changes, in nats, mean over both signs.
    """
    if not rows(following, base.shape[-1], "token").equal(following):
        raise ValueError(f"following must be ids of tokens, not {following.tolist()}.")
    after = both.log_softmax(-1).gather(-1, following.expand(2, -1)[..., None])
    before = base.log_softmax(-1).gather(-1, following[:, None])
    return {"kl": divergence(both, base).mean().item(), "ll": (after - before).mean().item()}


def measured(benches: Benches, edit: Edit, betas: Sequence[float]) -> list[dict[str, Any]]:
    """All axes of an edit at every β: a row each."""
    n, own, transfer = benches.n_train, benches.own, benches.transfer
    neutral, rows, after = benches.neutral, [], len(benches.choose.prompts)
    train, test = (own.prompts.at(range(*ends)) for ends in ((0, n), (n, len(own.prompts))))
    logits = [bench.both(edit, betas) for bench in (own, transfer, neutral)]
    for beta, ours, theirs, texts in zip(betas, *logits):
        learned = gained(ours[:, :n], own.base[:n], train)
        row = {"beta": beta, "E0_train": learned["E0"], "F_train": learned["F"]}
        row |= gained(ours[:, n:], own.base[n:], test)
        other = gained(theirs, transfer.base, transfer.prompts)
        row |= {"E0_transfer": other["E0"], "E0_transfer_base": other["E0_base"]}
        row["kl_choose"] = divergence(texts[:, :after], neutral.base[:after]).mean().item()
        rows.append(row | damaged(texts[:, after:], neutral.base[after:], benches.following))
    return rows


@contextmanager
def counted(model: TransformerBridge) -> Iterator[dict[str, float]]:
    """Count prompts that run forward to the end of the model and backward from it, and seconds."""
    cost, start = {"forward": 0, "backward": 0, "seconds": 0.0}, perf_counter()

    def back(gradient: Tensor) -> None:
        cost["backward"] += len(gradient)

    def count(x: Tensor, hook) -> None:
        cost["forward"] += len(x)
        if x.requires_grad:
            x.register_hook(back)

    with hooked(model, [("ln_final.hook_in", count)]):
        yield cost
    cost["seconds"] = perf_counter() - start
