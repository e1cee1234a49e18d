"""An intervention over a grid of strengths: where answers flip, and which strength serves best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import Intervention, steered_logits
from helpers.activation_scaling.objective import (
    Objective,
    base_logits,
    divergence,
    logit_diff,
    minimality,
    swap_gap,
)
from helpers.prompts.prompts import Prompts


@dataclass(frozen=True)
class Sweep:
    """What an intervention does to prompts at −``|β|``, 0 and ``|β|``, for each magnitude tried.

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

    def flips(self) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """Where each prompt's answer flips as ``|β|`` grows from 0.

        The side meant to flip is β > 0 where the model prefers the wrong answer, and β < 0 where it
        prefers the correct one. A flip and its way back between two strengths go unseen.

        Returns:
            The smallest ``|β|`` that flips the answer on the side meant to flip, interpolated
            linearly between two strengths, NaN where none does; and whether that is before it flips
            on the other side, so that some ``|β|`` gives the correct answer at +``|β|`` and the
            wrong one at −``|β|`` (E_0 = 0 at that strength).
        """
        n = len(self.betas) // 2
        sizes, base = self.betas[n:].to(self.diff), self.diff[n]
        # From 0 outwards, on the side meant to flip and on the other: [side magnitude row].
        sides = torch.stack([self.diff[n:], self.diff.flip(0)[n:]])
        sides = torch.where(base < 0, sides, sides.flip(0))
        flipped = sides.sign() != base.sign()
        end = flipped.int().argmax(1, keepdim=True).clamp_min(1)  # [side 1 row], 0 where none does
        before, after = sides.gather(1, end - 1), sides.gather(1, end)
        share = before / (before - after)
        found = sizes[end - 1] + share * (sizes[end] - sizes[end - 1])
        found = torch.where(flipped.any(1), found[:, 0], torch.inf)  # [side row]
        return found[0].masked_fill(found[0].isinf(), torch.nan), found[0] < found[1]


@torch.no_grad()
def sweep_strengths(
    model: TransformerBridge,
    prompts: Prompts,
    intervention: Intervention,
    magnitudes: Sequence[float],
    *,
    batch_size: int = 64,
) -> Sweep:
    """Steer with every magnitude of either sign, and with 0.

    Raises:
        ValueError: magnitudes that are not positive, finite and rising.
    """
    sizes = np.asarray(magnitudes, dtype=float)
    if not (sizes.size and sizes[0] > 0 and (np.diff(sizes) > 0).all() and sizes[-1] < np.inf):
        raise ValueError(f"magnitudes must be positive, finite and rising, not {sizes.tolist()}.")
    base = base_logits(model, prompts.tokens, batch_size)
    tried = [*-sizes[::-1], *sizes]
    logits = steered_logits(model, prompts.tokens, intervention, tried, batch_size=batch_size)
    below, above = logits.tensor_split(2)
    logits = torch.cat([below, base[None], above])
    betas = torch.tensor([*-sizes[::-1], 0.0, *sizes], device=logits.device)
    diff = logit_diff(logits, prompts.correct, prompts.wrong)
    return Sweep(betas, diff, divergence(logits, base))


def best_strength(sweep: Sweep, objective: Objective, theta: Float[Tensor, " n_parameters"]) -> int:
    """Number of the one β ≠ 0 of a sweep for which β·θ scores best on Ψ of Eq. 9.

    What the limitations section of the activation-scaling paper proposes for attribution maps.
    """
    psi = sweep.effectiveness(objective.margin).mean(1)
    psi = psi + objective.lambda_f * sweep.faithfulness().mean(1)
    sizes = sweep.betas.abs().to(psi)
    psi = psi + objective.lambda_m * sizes * minimality(theta, 1)  # of β·θ
    return int(psi.masked_fill(sizes == 0, -torch.inf).argmax())
