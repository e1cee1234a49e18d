"""LayerNorm and RMSNorm as something that a feature vector passes through, from the norm's output back to its input.

The papers' LayerNorm(x) is Px/‖Px‖ with P the projection off the all-ones vector; models compute √d·w⊙Px/‖Px‖ + b, with
a small ε under the root. RMSNorm is the same without P and b.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Protocol

from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

Vector = Float[Tensor, "*batch d_model"]


@dataclass(frozen=True)
class Norm:
    """One norm of a model: norm(x) = w ⊙ Px / σ(x) + b, where σ(x)² = ‖Px‖²/d + ε.

    Attributes:
        name: ``ln_final``, ``blocks.3.ln1`` (before attention) or ``blocks.3.ln2`` (before the MLP).
        weight, bias: w and b; no bias in RMSNorm.
        eps: ε.
        centred: whether P removes the mean (LayerNorm) or is the identity (RMSNorm).

    Example:
        RMSNorm gives every input the length √d:

        >>> import torch
        >>> norm = Norm("ln_final", weight=torch.ones(2), bias=None, eps=0.0, centred=False)
        >>> x = torch.tensor([6.0, 8.0])
        >>> norm(x)
        tensor([0.8485, 1.1314])
        >>> norm(10 * x).allclose(norm(x))
        True
    """

    name: str
    weight: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"] | None
    eps: float
    centred: bool

    @classmethod
    def of(cls, model: TransformerBridge, name: str) -> Norm:
        """A norm of a model, by its name.

        Raises:
            ValueError: there is no norm of that name, or it is neither LayerNorm nor RMSNorm.
        """
        kind = model.cfg.normalization_type
        if kind not in ("LN", "RMS"):
            raise ValueError(
                f"{model.cfg.model_name} has norms of type {kind!r}; only LN and RMS are dealt with here."
            )
        if f"{name}.hook_in" not in model.hook_dict:
            raise ValueError(
                f"{model.cfg.model_name} has no norm {name!r}; names are ln_final, blocks.0.ln1, blocks.0.ln2, ..."
            )
        module = model.get_submodule(name)
        bias = getattr(module.original_component, "bias", None)
        return cls(
            name,
            module.weight.detach(),
            None if bias is None else bias.detach(),
            model.cfg.eps,
            centred=kind == "LN",
        )

    def centre(self, x: Vector) -> Vector:
        """Px: without its mean for LayerNorm, as it is for RMSNorm."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: Vector) -> Float[Tensor, "*batch 1"]:
        """σ(x), what the norm divides by."""
        return (self.centre(x).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def __call__(self, x: Vector) -> Vector:
        out = self.weight * self.centre(x) / self.scale(x)
        return out if self.bias is None else out + self.bias

    def gradient(self, y: Vector, x: Vector) -> Vector:
        """∇ₓ y·norm(x), exact: P(I − x̂x̂ᵀ)(w ⊙ y)/σ, with x̂ = Px/(√d σ) (appendix B, with w and ε)."""
        direction = self.centre(x) / (sqrt(x.shape[-1]) * self.scale(x))
        pulled = self.fixed(y, x)
        return pulled - direction * (direction * pulled).sum(-1, keepdim=True)

    def fixed(self, y: Vector, x: Vector) -> Vector:
        """P(w ⊙ y)/σ(x): what y reads when σ is held at its value at x, so that fixed·x + y·b = y·norm(x)."""
        return self.centre(self.weight * y) / self.scale(x)

    def weighted(self, y: Vector, input_norm: float | Float[Tensor, "*batch 1"] = 1.0) -> Vector:
        """(√d/‖x‖) w ⊙ y, the paper's approximation from a measured input norm ‖x‖ (section 4.4, step 2).

        Left at 1 it is the paper's rule for the norm nearest to the input, which the input's own norm cancels (5.1.1).
        """
        return sqrt(y.shape[-1]) / input_norm * self.weight * y


class Norms(Protocol):
    """How the norms on a path are dealt with."""

    def pull_back(self, norm: Norm, y: Vector) -> Vector:
        """From a vector that reads the norm's output to one that reads its input."""


@dataclass(frozen=True)
class IgnoreNorms:
    """Norms left out: needs no data; directions are nearly right and lengths are not (section 4.3.3)."""

    def pull_back(self, norm: Norm, y: Vector) -> Vector:
        return y


@dataclass(frozen=True)
class NormWeights:
    """(√d/‖x‖) w ⊙ y: the norm's own weights and a measured input norm (section 4.4, step 2).

    Attributes:
        input_norms: name of a norm -> ‖x‖, mean norm of its input. A norm that is not in it is not divided (5.1.1).
    """

    input_norms: Mapping[str, float] = field(default_factory=dict)

    def pull_back(self, norm: Norm, y: Vector) -> Vector:
        return norm.weighted(y, self.input_norms.get(norm.name, 1.0))


@dataclass(frozen=True)
class NormGradients:
    """The exact gradient of every norm at a point.

    Attributes:
        points: name of a norm -> its input, [d_model] or with leading axes that broadcast with the vectors'.
    """

    points: Mapping[str, Vector]

    def pull_back(self, norm: Norm, y: Vector) -> Vector:
        if norm.name not in self.points:
            raise ValueError(
                f"no point is given at which to take the gradient of {norm.name}; there are {', '.join(self.points) or 'none'}."
            )
        return norm.gradient(y, self.points[norm.name])
