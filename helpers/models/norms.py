"""LayerNorm and RMSNorm of a model, as functions whose gradient is written out.

The papers' LayerNorm(x) is Px/‖Px‖, with P the projection off the all-ones vector; models compute
√d·w⊙Px/‖Px‖ + b, with a small ε under the root. RMSNorm is the same without P and b.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked

Vector = Float[Tensor, "*batch d_model"]
With = Float[Tensor, "*#batch d_model"]  # with other vectors of the same axes, or of one


def tolerance(dtype: torch.dtype) -> float:
    """Relative error that rounding explains; norms of 64-bit models are often 32-bit."""
    return max(1e-5, 8 * torch.finfo(dtype).eps)


@dataclass(frozen=True)
class Norm:
    """One norm of a model: norm(x) = w ⊙ Px / σ(x) + b, where σ(x)² = ‖Px‖²/d + ε.

    Attributes:
        name: ``ln_final``, ``blocks.3.ln1`` (before attention), ``blocks.3.ln2`` (before the MLP);
            ``ln1_post`` and ``ln2_post`` come after them in some models.
        weight, bias: w, as it multiplies, and b; no bias in RMSNorm.
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

        Some modules multiply by their weight, some by 1 + weight, some have none, and
        configurations do not always tell; so the module itself is asked, with a vector.

        Raises:
            ValueError: no norm of that name, or one that is neither LayerNorm nor RMSNorm.
        """
        which, like = model.cfg.model_name, model.W_U
        try:
            module = model.get_submodule(name).original_component
        except AttributeError:
            raise ValueError(
                f"{which} has no norm {name!r}; "
                "the names are ln_final, blocks.0.ln1, blocks.0.ln2, ..."
            ) from None
        weight, bias = (getattr(module, part, None) for part in ("weight", "bias"))
        eps = getattr(module, "eps", getattr(module, "variance_epsilon", model.cfg.eps))
        ones = torch.ones(model.cfg.d_model, dtype=like.dtype, device=like.device)
        weights = [ones] if weight is None else [weight.detach(), 1 + weight.detach()]
        bias = None if bias is None else bias.detach()
        # Small, so that ε matters, and with a mean, so that the projection P does.
        x = 0.01 * (torch.arange(1, model.cfg.d_model + 1, device=like.device).sin() + 0.5)
        x = x.to(weights[0])
        try:
            with torch.no_grad():
                out = module(x[None, None])[0, 0]
            for w, centred in product(weights, (True, False)):
                norm = cls(name, w, bias, eps, centred)
                if (norm(x) - out).norm() <= tolerance(x.dtype) * out.norm():
                    return norm
        except (RuntimeError, TypeError, IndexError):  # another kind of module, or of size
            pass
        raise ValueError(f"{name} of {which} is neither LayerNorm nor RMSNorm over d_model.")

    @checked
    def centre(self, x: Vector) -> Vector:
        """Px: x without its mean in LayerNorm, x itself in RMSNorm."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    @checked
    def scale(self, x: Vector) -> Float[Tensor, "*batch 1"]:
        """σ(x), the divisor."""
        return (self.centre(x).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    @checked
    def __call__(self, x: Vector) -> Vector:
        out = self.weight * self.centre(x) / self.scale(x)
        return out if self.bias is None else out + self.bias

    @checked
    def gradient(self, y: With, x: With) -> Vector:
        """∇ₓ y·norm(x) = P(I − x̂x̂ᵀ)(w ⊙ y)/σ, with x̂ = Px/(√d σ) (appendix B, with w and ε)."""
        direction = self.centre(x) / (sqrt(x.shape[-1]) * self.scale(x))
        pulled = self.fixed(y, x)
        return pulled - direction * (direction * pulled).sum(-1, keepdim=True)

    @checked
    def fixed(self, y: With, x: With) -> Vector:
        """P(w ⊙ y)/σ(x), the gradient with σ held at its value: fixed·x + y·b = y·norm(x)."""
        return self.centre(self.weight * y) / self.scale(x)

    @checked
    def weighted(self, y: With, input_norm: float | Float[Tensor, "*#batch 1"] = 1.0) -> Vector:
        """(√d/‖x‖) w ⊙ y, the paper's approximation from a measured ‖x‖ (section 4.4, step 2).

        With ‖x‖ = 1 it is the rule for the norm nearest to the input, which its length cancels
        (5.1.1).

        Raises:
            TypeError, ValueError: lengths that are not positive and finite.
        """
        if (torch.as_tensor(input_norm) <= 0).any():
            raise ValueError(f"input_norm = {input_norm} must be positive: it is a length.")
        return sqrt(y.shape[-1]) / input_norm * self.weight * y
