"""How strong an intervention must be: the smallest ``|β|`` at which it flips the answers, and the β that serves best."""

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
from helpers.activation_scaling.objective import Objective, logit_diff
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts


@dataclass(frozen=True)
class Flips:
    """Per prompt, the smallest ``|β|`` on each side of 0 at which the logit difference has another sign than at β = 0.

    NaN where no β of the grid flips it. A crossing and its way back between two neighbours of the grid goes unseen.

    Attributes:
        base: logit difference at β = 0, in nats.
        up, down: smallest flipping β > 0, and magnitude of the smallest flipping β < 0.
    """

    base: Float[np.ndarray, " batch"]
    up: Float[np.ndarray, " batch"]
    down: Float[np.ndarray, " batch"]

    @property
    def swap(self) -> Float[np.ndarray, " batch"]:
        """``|β|`` on the side meant to flip: β > 0 where the model prefers the wrong answer, β < 0 where the correct one."""
        return np.where(self.base < 0, self.up, self.down)

    @property
    def against(self) -> Float[np.ndarray, " batch"]:
        """``|β|`` on the other side, where a flip goes against the sign of β."""
        return np.where(self.base < 0, self.down, self.up)

    @property
    def steers(self) -> Bool[np.ndarray, " batch"]:
        """Whether some ``|β|`` gives the correct answer at +``|β|`` and the wrong one at −``|β|`` (E_0 = 0 at that strength)."""
        return np.isfinite(self.swap) & ~(self.against <= self.swap)


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
def smallest_flip(
    model: TransformerBridge,
    prompts: Prompts,
    intervention: Intervention,
    magnitudes: Sequence[float] | None = None,
    *,
    tolerance: float = 1e-3,
    batch_size: int = 64,
) -> Flips:
    """Bracket on a grid of magnitudes, then close in with Chandrupatla's method (scipy), all prompts at once.

    Args:
        model, prompts, intervention: what is steered, and how.
        magnitudes: the grid of ``|β|``, rising; 25 values from 0.01 to 100, evenly spaced on a logarithmic scale, if not given.
        tolerance: relative, of the β reported.

    Raises:
        ValueError: a grid that is not positive and rising.
    """
    grid = (
        np.geomspace(0.01, 100, 25) if magnitudes is None else np.asarray(magnitudes, dtype=float)
    )
    if not (grid[0] > 0 and (np.diff(grid) > 0).all()):
        raise ValueError(f"magnitudes must be positive and rising, not {grid.tolist()}.")

    def differences(betas: np.ndarray) -> np.ndarray:
        found = steered_diff(model, prompts, intervention, betas, batch_size=batch_size)
        return found.cpu().double().numpy()

    base = differences(np.zeros(1))[0]
    sides = []
    for sign in (1, -1):
        betas = sign * np.concatenate([[0.0], grid])
        flipped = np.sign(np.concatenate([base[None], differences(betas[1:])])) != np.sign(
            base
        )  # [beta batch]
        rows = np.flatnonzero(flipped.any(0))
        found = np.full(len(base), np.nan)
        if rows.size:
            first = flipped[:, rows].argmax(0)
            result = elementwise.find_root(
                lambda beta, row: _at(model, prompts, intervention, beta, row),
                (betas[first - 1], betas[first]),
                args=(rows,),
                tolerances={"xrtol": tolerance, "xatol": tolerance * grid[0]},
            )
            found[rows] = np.abs(result.x)
        sides.append(found)
    return Flips(base, *sides)


def _at(
    model: TransformerBridge,
    prompts: Prompts,
    intervention: Intervention,
    beta: np.ndarray,
    row: np.ndarray,
) -> np.ndarray:
    """Logit difference of some prompts, each at its own β."""
    some = prompts.at(row.ravel())
    with intervention.applied(model, torch.as_tensor(beta.ravel(), dtype=intervention.vec().dtype)):
        logits = last_logits(model, some.tokens)
    return logit_diff(logits, some.correct, some.wrong).cpu().double().numpy().reshape(beta.shape)


@torch.no_grad()
def best_strength(
    model: TransformerBridge,
    prompts: Prompts,
    intervention: Intervention,
    objective: Objective,
    magnitudes: Sequence[float],
    *,
    batch_size: int = 64,
) -> float:
    """The one β, of either sign, for which β·θ scores best on Ψ of Eq. 9; the map itself stays as it is.

    What the limitations section of the activation-scaling paper proposes for attribution maps. θ enters M_1 as β·θ.
    """
    base = torch.cat([last_logits(model, chunk) for chunk in prompts.tokens.split(batch_size)])
    theta = intervention.vec()
    scores = {}
    for magnitude in map(float, magnitudes):
        up, down = steered_logits(
            model, prompts.tokens, intervention, [magnitude, -magnitude], batch_size=batch_size
        )
        for beta, plus, minus in ((magnitude, up, down), (-magnitude, down, up)):
            scores[beta] = objective.terms(
                beta * theta, plus, minus, base, prompts.correct, prompts.wrong
            )["psi"].item()
    return max(scores, key=lambda beta: scores[beta])
