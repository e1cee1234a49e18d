"""Controls: observables and vectors that are drawn at random and know nothing of the question."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge


def random_observables(
    model: TransformerBridge, n: int, generator: torch.Generator
) -> Float[Tensor, "n d_model"]:
    """Vectors m = W_U n of observables that are the difference of two random tokens' logits."""
    tokens = torch.randint(model.cfg.d_vocab, (2, n), generator=generator).to(model.W_U.device)
    return (model.W_U[:, tokens[0]] - model.W_U[:, tokens[1]]).T


def random_pairs(
    n: int, d_model: int, cosine: float, generator: torch.Generator
) -> Float[Tensor, "2 n d_model"]:
    """Pairs of unit vectors in random directions with a given cosine."""
    a, b = torch.randn(2, n, d_model, generator=generator)
    a = a / a.norm(dim=-1, keepdim=True)
    b = b - (a * b).sum(-1, keepdim=True) * a
    return torch.stack([a, cosine * a + (1 - cosine**2) ** 0.5 * b / b.norm(dim=-1, keepdim=True)])
