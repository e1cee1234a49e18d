"""Where to intervene: points K = layers × positions × sites of the Transformer.

Section 3.1 of the activation-scaling paper calls the sites attnOut, mlpOut and residPost; the names
here are TransformerLens'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.blocks import kv_heads
from helpers.models.checks import checked, whole
from helpers.models.run import HOOKS

PER_HEAD = ("z", "v", "head_out")


@dataclass(frozen=True)
class Points:
    """Intervention points: every combination of sites, layers and positions (section 3.1).

    Made with :meth:`of`, which checks them against a model.

    Attributes:
        sites, layers, positions: the three axes; position 0 is the beginning-of-sequence token.
        n_pos: prompt length in tokens, that token included; positions are tied to it. None for
            interventions that work on prompts of any length.
        n_layers, d_model, d_head, n_heads, n_kv_heads: the shape of the model they were made for.
    """

    sites: tuple[str, ...]
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    n_pos: int | None
    n_layers: int
    d_model: int
    d_head: int
    n_heads: int
    n_kv_heads: int

    @classmethod
    @checked
    def of(
        cls,
        model: TransformerBridge,
        n_pos: int | None,
        *,
        sites: str | Sequence[str] = ("attn_out", "mlp_out"),
        layers: Iterable[int] | None = None,
        positions: Iterable[int] | None = None,
    ) -> Points:
        """Points of a model, everywhere along an axis that is not given.

        Args:
            model: the model to intervene on.
            n_pos: prompt length in tokens with the beginning-of-sequence token; None for any.
            sites: names from ``HOOKS``.
            layers, positions: indices; negative ones count from the end.

        Raises:
            TypeError, ValueError: a site, layer or position that model or prompt does not have.
        """
        sites = (sites,) if isinstance(sites, str) else tuple(sites)
        if unknown := [site for site in sites if site not in HOOKS]:
            raise ValueError(f"unknown site {unknown[0]!r}; the sites are {', '.join(HOOKS)}.")
        if {"z", "head_out"} <= set(sites):
            raise ValueError("z and head_out are the same place in the model; choose one of them.")
        if n_pos is None and positions is not None:
            raise ValueError("positions need a prompt length: give n_pos.")
        length = 0 if n_pos is None else whole("n_pos", n_pos)
        axes = {
            "site": sites,
            "layer": _resolved("layer", layers, model.cfg.n_layers),
            "position": _resolved("position", positions, length),
        }
        for name, values in axes.items():
            if not values and (name != "position" or n_pos is not None):
                raise ValueError(f"no {name} to intervene on.")
            if len(set(values)) < len(values):
                raise ValueError(f"a {name} is given twice: {values}.")
        return cls(*axes.values(), None if n_pos is None else length, *_shape(model))

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Every site in every layer."""
        return tuple(product(self.sites, self.layers))

    def heads(self, site: str) -> tuple[int, ...]:
        """Shape of the head axis of a site: empty where the site has none."""
        if site not in HOOKS:
            raise ValueError(f"unknown site {site!r}; the sites are {', '.join(HOOKS)}.")
        if site not in PER_HEAD:
            return ()
        return (self.n_kv_heads if site == "v" else self.n_heads,)

    def width(self, site: str) -> int:
        """Dimension of one activation vector at a site."""
        return self.d_head if site in ("z", "v") else self.d_model

    def check_model(self, model: TransformerBridge) -> None:
        """Raise ValueError unless the model has the shape these points were made for."""
        made = (self.n_layers, self.d_model, self.d_head, self.n_heads, self.n_kv_heads)
        if made != (here := _shape(model)):
            raise ValueError(
                "this intervention was made for another model: (layers, d_model, d_head, heads, "
                f"key/value heads) was {made}, and {model.cfg.model_name} has {here}."
            )

    def check_length(self, length: int, at: slice = slice(None), *, padded: bool = False) -> None:
        """Raise ValueError if positions are tied to one prompt length and this run has another.

        Args:
            length: positions of the run.
            at: which positions of the prompts these are.
            padded: whether the prompts are of several lengths.
        """
        if self.n_pos is None:
            return
        tied = f"this intervention is tied to prompts of {self.n_pos} tokens, and "
        if padded:
            raise ValueError(
                f"{tied}these are of several lengths. A dynamic intervention takes any "
                "(helpers.activation_scaling.dynamic)."
            )
        if length != len(range(self.n_pos)[at]):
            n = length + (at.start or 0)  # with the start that prompts share
            raise ValueError(f"{tied}this one has {n} (the beginning of sequence counts).")

    def everywhere(self, values: Float[Tensor, "selected ..."]) -> Float[Tensor, "pos ..."]:
        """Values of the points of one layer at every position of a prompt, zero elsewhere."""
        if self.positions == tuple(range(self.n_pos)):
            return values
        where = torch.tensor(self.positions, device=values.device)
        return values.new_zeros(self.n_pos, *values.shape[1:]).index_copy(0, where, values)


def _shape(model: TransformerBridge) -> tuple[int, ...]:
    cfg = model.cfg
    return cfg.n_layers, cfg.d_model, cfg.d_head, cfg.n_heads, kv_heads(model)


def _resolved(axis: str, indices: Iterable[int] | None, length: int) -> tuple[int, ...]:
    given = range(length) if indices is None else indices
    return tuple(whole(axis, index, -length, length) % length for index in given)
