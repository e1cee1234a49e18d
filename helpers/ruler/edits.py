"""Edits at the last token: interventions of the first paper's kind that others have proposed.

Each is an :class:`Intervention`, so that fitting, batching over strengths, and prefixes that run
once serve them all: h̃ = h + β·(a change) at the last token of the prompt, nothing elsewhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.dynamic import DynScalar
from helpers.activation_scaling.interventions import Intervention
from helpers.activation_scaling.points import Points
from helpers.models import checks
from helpers.models.checks import checked, whole
from helpers.models.resume import Run
from helpers.models.run import unembed
from helpers.prompts.prompts import Prompts

ROWS = 256  # in one forward pass


def last_points(model: TransformerBridge, n_pos: int, layer: int | None, *sites: str) -> Points:
    """Points at the last token: of the stream in front of a layer, or of some sites of all layers.

    Args:
        layer: 1 to ``n_layers``, the end in front of ``ln_final``; None for all layers.
        sites: ``resid_post`` if not given.

    Raises:
        TypeError, ValueError: no such layer or site.
    """
    layers = None if layer is None else [whole("layer", layer, 1, model.cfg.n_layers + 1) - 1]
    return Points.of(model, n_pos, sites=sites or ("resid_post",), layers=layers, positions=[-1])


class AtToken(Intervention):
    """h̃ = h + change(h) at the positions of the points, with one row of θ for each layer."""

    def theta_shape(self, site: str) -> tuple[int, ...]:
        return (len(self.points.layers), *self.points.heads(site), self.n_own(site))

    @abstractmethod
    def n_own(self, site: str) -> int:
        """Number of parameters in a row."""

    @abstractmethod
    def change(
        self, h: Float[Tensor, "batch pos *head d"], theta: Tensor, beta: Float[Tensor, ...]
    ) -> Float[Tensor, "batch pos *head d"]:
        """What is added; zero where β is."""

    def edit(self, model, h, site, layer, beta):
        on = self.points.everywhere(h.new_ones(len(self.points.positions)))[self._at]
        on = on.view(-1, *[1] * (h.ndim - 2))
        return h + on * self.change(h, self.theta[site][layer], beta)


class ToldVec(AtToken):
    """h̃ = h + βv with a vector for each prompt; θ holds them one after the other.

    The batch must be the prompts in their order, again and again, as :func:`steered` runs them.

    Raises:
        TypeError, ValueError: vectors of another width, or that are not finite; in a run, a batch
            of other prompts.
    """

    @checked
    def __init__(self, points: Points, vectors: Float[Tensor, "prompt d_model"]) -> None:
        if points.sites != ("resid_post",) or len(points.layers) * len(points.positions) != 1:
            raise ValueError(f"vectors go to one place of the stream, not to {points}.")
        checks.vectors("vectors", vectors, points.d_model, axes=2)
        self.n_prompts = len(vectors)  # theta_shape reads it
        super().__init__(points, dtype=vectors.dtype, device=vectors.device)
        self.theta[points.sites[0]].data[0] = vectors.flatten()

    def n_own(self, site):
        return self.n_prompts * self.points.width(site)

    def own(self, h: Tensor, theta: Tensor) -> Float[Tensor, "batch 1 d_model"]:
        """The vector of each row of a batch."""
        if len(h) % self.n_prompts:
            raise ValueError(f"there are vectors for {self.n_prompts} prompts, not for {len(h)}.")
        return theta.view(self.n_prompts, 1, -1).repeat(len(h) // self.n_prompts, 1, 1)

    def change(self, h, theta, beta):
        return beta * self.own(h, theta)


class SetReading(ToldVec):
    """``h̃ = h + (βt − min(1, |β|)·(h − μ)·y) w``: what y reads becomes its mean plus βt.

    ``helpers.observable_propagation.edits.projection`` with a target. w = y/‖y‖².

    Attributes:
        mean: μ, [d_model].
        target: t, in nats.

    Raises:
        TypeError, ValueError: as :class:`ToldVec`; a feature vector that is zero.
    """

    def __init__(
        self,
        points: Points,
        features: Float[Tensor, "prompt d_model"],
        mean: Float[Tensor, " d_model"],
        target: float,
    ) -> None:
        super().__init__(points, features)
        if (features == 0).all(-1).any():
            raise ValueError("a feature vector is zero: there is nothing that it reads.")
        width = features.shape[-1]
        self.register_buffer("mean", checks.vectors("mean", mean, width, axes=1))
        self.target = checks.real("target", target)

    def change(self, h, theta, beta):
        y = self.own(h, theta)
        reading = ((h - self.mean) * y).sum(-1, keepdim=True)
        amount = beta * self.target - beta.abs().clamp_max(1) * reading
        return amount * y / y.pow(2).sum(-1, keepdim=True)


class LastDynScalar(DynScalar):
    """DynScalar (Eq. 10, activation scaling) at the last token only."""

    def __init__(self, points: Points, **how) -> None:
        Intervention.__init__(self, points, **how)  # Dynamic refuses points that have positions

    def edit(self, model, h, site, layer, beta):
        alpha = self.scalars(h, site, layer)
        on = self.points.everywhere(h.new_ones(len(self.points.positions)))[self._at]
        return h * (1 + beta * (on * alpha).unsqueeze(-1))


class LoReFT(AtToken):
    """h̃ = h + β·r̂ (w·h + b): LoReFT of rank one (Wu et al., 2024), with r̂ = r/‖r‖.

    The paper writes Rᵀ(Wh + b − Rh); w is its W − R, so that small parameters change little. θ
    holds r, w and b.
    """

    def n_own(self, site):
        return 2 * self.points.width(site) + 1

    def change(self, h, theta, beta):
        r, w, b = theta.split([h.shape[-1], h.shape[-1], 1], dim=-1)
        return beta * ((h * w).sum(-1, keepdim=True) + b) * normalize(r, dim=-1)


class GatedVec(AtToken):
    """h̃ = h + β·s(g·ĥ + c)·v with the logistic s and ĥ = h/‖h‖; θ holds v, g and c.

    A vector whose strength each activation sets, as in dynamically scaled steering (Ferrando et
    al., 2025), with the gate learned together with the vector.
    """

    def n_own(self, site):
        return 2 * self.points.width(site) + 1

    def change(self, h, theta, beta):
        v, g, c = theta.split([h.shape[-1], h.shape[-1], 1], dim=-1)
        return beta * ((normalize(h, dim=-1) * g).sum(-1, keepdim=True) + c).sigmoid() * v


class HeadGates(AtToken):
    """``z̃ = z·(1 − |β|·(1 − G))`` with a gate G = s(4 + θ) in (0, 1) for each head and sign of β.

    Causal head gating (Nam et al., 2025): heads can be closed and nothing else. The gates of β > 0
    are fitted to raise the correct answer, those of β < 0 to raise the wrong one. At θ = 0 they are
    almost open.
    """

    def n_own(self, site):
        if not self.points.heads(site):
            raise ValueError(f"gates close heads, and {site} has none: use z.")
        return 2

    def change(self, h, theta, beta):
        closed = 1 - (4 + theta).sigmoid()  # [head 2]
        return -(beta.clamp_min(0) * closed[:, :1] - beta.clamp_max(0) * closed[:, 1:]) * h


def check_last(made: Intervention) -> None:
    """Raise ValueError for an intervention that acts elsewhere than at the last token."""
    if made.points.n_pos is None or made.points.positions != (made.points.n_pos - 1,):
        raise ValueError("this takes edits at the last token alone; see steered_logits for others.")


@checked
def steered(
    model: TransformerBridge,
    run: Run,
    made: Intervention,
    betas: Float[Tensor, " beta"] | list[float],
) -> Float[Tensor, "beta prompt d_vocab"]:
    """Last-token logits of all prompts at every β, for an edit at the last token.

    What comes before the last token or before the first layer that is edited stays as it was in the
    run, so only the rest is computed again.

    Raises:
        ValueError: an intervention that acts elsewhere too, or on prompts of another length.
    """
    n, n_pos = run.tokens.shape
    check_last(made)
    made.points.check_length(n_pos)
    start, last = min(made.points.layers), slice(n_pos - 1, None)
    prompts, logits = torch.arange(n, device=run.tokens.device), []
    for some in made.strengths(betas).split(max(1, ROWS // n)):
        with made.applied(model, some.repeat_interleave(n), at=last):
            ends = run.edited(model, start, -1, lambda x: x, prompts.repeat(len(some)))
        logits.append(unembed(model, ends).unflatten(0, (len(some), n)))
    return torch.cat(logits)


@dataclass(frozen=True)
class Edit:
    """What a method makes: an intervention for any prompts.

    Attributes:
        on: from prompts to the intervention on them, tied to their length.
        size: how many numbers describe it, those below 1 % of the largest left out.
        places: how many activation vectors of a prompt it changes.
        layer: where, if it is one.
    """

    on: Callable[[Prompts], Intervention]
    size: int
    places: int
    layer: int | None = None

    @checked
    def logits(
        self, model: TransformerBridge, prompts: Prompts, run: Run, betas: list[float]
    ) -> Float[Tensor, "beta prompt d_vocab"]:
        """Last-token logits of the prompts at every β, from a finished run of the prompts.

        Raises:
            ValueError: a run of other prompts.
        """
        if prompts.tokens is not run.tokens and not torch.equal(prompts.tokens, run.tokens):
            raise ValueError("the run is one of other prompts: use Run.of(model, prompts.tokens).")
        return steered(model, run, self.on(prompts), betas)


@checked
def size_of(numbers: Float[Tensor, "*n"]) -> int:
    """How many numbers are at least 1 % of the largest."""
    sizes = numbers.detach().abs()
    return int((sizes >= 0.01 * sizes.max()).sum()) if sizes.max() > 0 else 0
