"""How strong an intervention must be: where answers flip, and the strength that serves best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import elementwise
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import Intervention, steered_logits
from helpers.activation_scaling.objective import (
    Objective,
    divergence,
    logit_diff,
    minimality,
    swap_gap,
)
from helpers.activation_scaling.together import each_applied
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts, join


@dataclass(frozen=True)
class Flips:
    """Where each prompt's answer flips as ``|β|`` grows from 0.

    The side meant to flip is β > 0 where the model prefers the wrong answer, and β < 0 where it
    prefers the correct one. A flip and its way back between two magnitudes of the grid go unseen.

    Attributes:
        base: logit difference at β = 0, in nats.
        swap: smallest ``|β|`` that flips the answer on the side meant to flip; NaN where none does.
        steers: whether that is before it flips on the other side, so that some ``|β|`` gives the
            correct answer at +``|β|`` and the wrong one at −``|β|`` (E_0 = 0 at that strength).
    """

    base: Float[np.ndarray, " batch"]
    swap: Float[np.ndarray, " batch"]
    steers: Bool[np.ndarray, " batch"]


def symmetric(magnitudes: Sequence[float]) -> Float[np.ndarray, " beta"]:
    """−``|β|``, 0 and ``|β|`` in rising order.

    Raises:
        ValueError: magnitudes that are not positive and rising.
    """
    grid = np.asarray(magnitudes, dtype=float)
    if not (grid[0] > 0 and (np.diff(grid) > 0).all()):
        raise ValueError(f"magnitudes must be positive and rising, not {grid.tolist()}.")
    return np.concatenate([-grid[::-1], [0.0], grid])


@dataclass(frozen=True)
class Sweep:
    """What an intervention does to prompts at every β of :func:`symmetric`.

    Attributes:
        betas: in rising order.
        diff: logit differences, in nats.
        kl: divergences of the steered from the base distribution, as in Eq. 7, in nats.
    """

    betas: Float[Tensor, " beta"]
    diff: Float[Tensor, "beta batch"]
    kl: Float[Tensor, "beta batch"]

    def at(self, rows: Sequence[int]) -> Sweep:
        """The sweep of some of the prompts."""
        return Sweep(self.betas, self.diff[:, rows], self.kl[:, rows])

    def effectiveness(self, margin: float = 0.0) -> Float[Tensor, "beta batch"]:
        """E_m of each prompt (Eq. 6), with β·θ for θ."""
        return swap_gap(self.diff, self.diff.flip(0), margin)

    def faithfulness(self) -> Float[Tensor, "beta batch"]:
        """F of each prompt (Eq. 7), with β·θ for θ."""
        return -(self.kl + self.kl.flip(0))


@torch.no_grad()
def sweep_strengths(
    model: TransformerBridge,
    prompts: Prompts,
    intervention: Intervention,
    magnitudes: Sequence[float],
    *,
    base: Float[Tensor, "batch d_vocab"] | None = None,
    batch_size: int = 64,
) -> Sweep:
    """Steer with every β of :func:`symmetric`; ``base`` are the logits at β = 0, if known."""
    betas = symmetric(magnitudes)
    if base is None:
        base = torch.cat([last_logits(model, chunk) for chunk in prompts.tokens.split(batch_size)])
    tried = betas[betas != 0]
    logits = steered_logits(model, prompts.tokens, intervention, tried, batch_size=batch_size)
    below, above = logits.tensor_split(2)
    logits = torch.cat([below, base[None], above])
    diff = logit_diff(logits, prompts.correct, prompts.wrong)
    return Sweep(torch.as_tensor(betas), diff, divergence(logits, base))


@torch.no_grad()
def steered_diff(
    model: TransformerBridge,
    prompts: Prompts,
    intervention: Intervention,
    betas: Float[Tensor, " beta"] | Sequence[float],
    *,
    batch_size: int = 64,
) -> Float[Tensor, "beta batch"]:
    """Logit difference of each prompt at each strength, in nats."""
    logits = steered_logits(model, prompts.tokens, intervention, betas, batch_size=batch_size)
    return logit_diff(logits, prompts.correct, prompts.wrong)


@torch.no_grad()
def smallest_flips(
    model: TransformerBridge,
    cases: Sequence[tuple[Intervention, Prompts]],
    magnitudes: Sequence[float],
    *,
    curves: Sequence[Float[Tensor, "beta batch"]] | None = None,
    tolerance: float = 1e-3,
) -> list[Flips]:
    """Bracket each flip on a grid, then close in with Chandrupatla's method, all cases at once.

    Args:
        cases: interventions of one class at the same points, each with its prompts, all of one
            length.
        magnitudes: the grid of ``|β|``, rising.
        curves: for each case the logit differences at every β of :func:`symmetric`, if known
            (``Sweep.diff``).
        tolerance: of the β reported, relative.
    """
    n, betas = len(magnitudes), symmetric(magnitudes)
    if curves is None:
        curves = [steered_diff(model, prompts, theta, betas) for theta, prompts in cases]
    values = torch.cat(list(curves), dim=1).cpu().double().numpy()  # [beta row]
    meant = np.where(values[n] < 0, 1, -1)  # the sign of β on the side meant to flip
    # From 0 outwards, on the side meant to flip and on the other: [side magnitude row].
    outwards = np.stack([values[n:], values[n::-1]])
    outwards = np.where(meant > 0, outwards, outwards[::-1])
    flipped = np.sign(outwards) != np.sign(values[n])
    first = np.where(flipped.any(1), flipped.argmax(1), n + 1)  # [side row]; n + 1: nowhere
    # The other side's flip must be known more closely only where both are in one bracket.
    side, row = np.nonzero((first <= n) & np.stack([first[0] <= n, first[0] == first[1]]))
    end, sign = first[side, row], np.where(side == 0, meant[row], -meant[row])
    roots = np.full(first.shape, np.nan)
    if row.size:
        ends = sign * betas[n + end - 1], sign * betas[n + end]
        at_ends = outwards[side, end - 1, row], outwards[side, end, row]
        limits = {"xrtol": tolerance, "xatol": tolerance * betas[n + 1]}
        roots[side, row] = np.abs(_roots(model, cases, row, ends, at_ends, limits))
    steers = (first[0] < first[1]) | ((first[0] == first[1]) & (roots[0] < roots[1]))
    cuts = np.cumsum([len(prompts) for _, prompts in cases])[:-1]
    return list(map(Flips, *(np.split(part, cuts) for part in (values[n], roots[0], steers))))


def _roots(model, cases, row, ends, at_ends, limits) -> Float[np.ndarray, " bracket"]:
    """β at which the logit difference of a case's row is 0, from each bracket's ends and values."""
    prompts = join([prompts for _, prompts in cases]).at(row)
    owners = np.repeat(np.arange(len(cases)), [len(prompts) for _, prompts in cases])[row]
    known = {}
    for beta, values in zip(ends, at_ends):
        known |= dict(zip(enumerate(beta), values))

    def difference(beta, bracket):
        new = [key for key in zip(bracket, beta) if key not in known]
        for start in range(0, len(new), 64):
            some, betas = zip(*new[start : start + 64])
            interventions = [cases[owner][0] for owner in owners[list(some)]]
            with each_applied(model, interventions, torch.tensor(betas)):
                logits = last_logits(model, prompts.tokens[list(some)])
            answers = prompts.correct[list(some)], prompts.wrong[list(some)]
            known.update(zip(new[start:], logit_diff(logits, *answers).double().tolist()))
        return np.array([known[key] for key in zip(bracket, beta)])

    which = (np.arange(len(row)),)
    return elementwise.find_root(difference, ends, args=which, tolerances=limits).x


def best_strength(sweep: Sweep, objective: Objective, theta: Float[Tensor, " n_parameters"]) -> int:
    """Number of the one β ≠ 0 of a sweep for which β·θ scores best on Ψ of Eq. 9.

    What the limitations section of the activation-scaling paper proposes for attribution maps.
    """
    psi = sweep.effectiveness(objective.margin).mean(1)
    psi = psi + objective.lambda_f * sweep.faithfulness().mean(1)
    sizes = sweep.betas.abs().to(psi)
    psi = psi + objective.lambda_m * sizes * minimality(theta, 1)  # of β·θ
    return int(psi.masked_fill(sizes == 0, -torch.inf).argmax())
