"""Dynamic activation scalars: α is a function of the activation, for prompts of any length.

Section 5 of the activation-scaling paper, Eq. 10; and the more expressive maps from activation to
scalar that its limitations section asks for.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import Intervention
from helpers.activation_scaling.points import Points
from helpers.models.checks import checked
from helpers.models.run import HOOKS, read_activations
from helpers.models.tokens import PAD


class Dynamic(Intervention):
    """h̃ = h·(1 + β·α(h)): Eq. 5 with a scalar computed from h, by one function a layer and site.

    The function sees the unit vector ĥ = h/‖h‖, or zero where h is zero; all positions share it.

    Raises:
        ValueError: points tied to positions (make them with ``n_pos=None``), or at ``head_out``.
    """

    @checked
    def __init__(
        self,
        points: Points,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if points.n_pos is not None:
            raise ValueError(
                "dynamic scalars work at every position of prompts of any length: make their "
                "points with n_pos=None."
            )
        if "head_out" in points.sites:
            raise ValueError(
                "dynamic scalars act on the activation at a hook, and head_out has none of its "
                "own: use z, in which a head's output is linear."
            )
        super().__init__(points, dtype=dtype, device=device)

    @abstractmethod
    def scalars(
        self, h: Float[Tensor, "batch pos *head d"], site: str, layer: int
    ) -> Float[Tensor, "batch pos *head"]:
        """α of every activation at a site of a layer (the ``layer``-th of ``points.layers``)."""

    def edit(self, model, h, site, layer, beta):
        return h * (1 + beta * self.scalars(h, site, layer).unsqueeze(-1))

    def theta_shape(self, site: str) -> tuple[int, ...]:
        return (len(self.points.layers), *self.points.heads(site), *self.own_shape(site))

    @abstractmethod
    def own_shape(self, site: str) -> tuple[int, ...]:
        """Shape of the parameters of one function."""

    @torch.no_grad()
    @checked
    def alpha(
        self, model: TransformerBridge, tokens: Int[Tensor, " pos"]
    ) -> dict[str, Float[Tensor, "layer pos *head"]]:
        """The scalars of one prompt's unsteered activations, by site: the map of Fig. 5.

        While the model is steered, later layers see activations that earlier edits have changed,
        and their scalars differ from these.
        """
        tokens, maps = tokens[tokens != PAD], {}
        for site in self.points.sites:
            names = [HOOKS[site].format(layer=layer) for layer in self.points.layers]
            cache, _ = read_activations(model, tokens[None], names)
            rows = [self.scalars(cache[name], site, row)[0] for row, name in enumerate(names)]
            maps[site] = torch.stack(rows)
        return maps


class DynScalar(Dynamic):
    """α = g·ĥ with a vector g for each layer and site (Eq. 10)."""

    def own_shape(self, site: str) -> tuple[int, ...]:
        return (self.points.width(site),)

    def scalars(self, h, site, layer):
        return (normalize(h, dim=-1) * self.theta[site][layer]).sum(-1)


class DynScalarBias(Dynamic):
    """α = g·ĥ + b, with the same bias b at every position. θ holds g, then b, on its last axis."""

    def own_shape(self, site: str) -> tuple[int, ...]:
        return (self.points.width(site) + 1,)

    def scalars(self, h, site, layer):
        theta = self.theta[site][layer]
        return (normalize(h, dim=-1) * theta[..., :-1]).sum(-1) + theta[..., -1]


class DynScalarHidden(Dynamic):
    """α = Σ_k u_k·tanh(w_k·ĥ + b_k): one hidden layer. θ holds w_k, b_k and u_k on its last axis.

    The output weights u start at the initial noise, as the scalars of the other maps do; the hidden
    weights at N(0, 1): from zero, every hidden unit would get the same gradient.

    Attributes:
        hidden: number of hidden units.
    """

    hidden = 8

    def own_shape(self, site: str) -> tuple[int, ...]:
        return (self.hidden, self.points.width(site) + 2)

    def reset(self, seed: int, std: float = 1e-5) -> None:
        super().reset(seed, std=1.0)
        with torch.no_grad():
            for theta in self.theta.values():
                theta[..., -1] *= std

    def scalars(self, h, site, layer):
        w, b, u = self.theta[site][layer].split([h.shape[-1], 1, 1], dim=-1)
        unit = torch.einsum("...d, ...kd -> ...k", normalize(h, dim=-1), w)
        return ((unit + b.squeeze(-1)).tanh() * u.squeeze(-1)).sum(-1)
