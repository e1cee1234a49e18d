"""Controls: observables that are drawn at random and know nothing of the question."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked, real, whole
from helpers.models.direct import logit_diff_vector


def random_observables(
    model: TransformerBridge, n: int, generator: torch.Generator
) -> Float[Tensor, "n d_model"]:
    """Vectors m = W_U n of observables that are the difference of two random tokens' logits."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"{generator!r} is no torch.Generator: make one with manual_seed.")
    n, size = whole("n", n), model.cfg.d_vocab
    plus = torch.randint(size, (n,), generator=generator)
    minus = (plus + torch.randint(1, size, (n,), generator=generator)) % size  # never the same
    device = model.W_U.device
    return logit_diff_vector(model, plus.to(device), minus.to(device))[0]


def observable_pairs(
    model: TransformerBridge, n: int, cosine: float, generator: torch.Generator
) -> Float[Tensor, "2 n d_model"]:
    """Pairs of random observables, as unit vectors, that have a given cosine."""
    n = whole("n", n)
    a, b = random_observables(model, 2 * n, generator).unflatten(0, (2, n))
    return with_cosine(a, b, cosine)


@checked
def with_cosine(
    a: Float[Tensor, "*n d_model"], b: Float[Tensor, "*n d_model"], cosine: float
) -> Float[Tensor, "2 *n d_model"]:
    """a, and b turned in the plane of the two until it has the cosine with a; as unit vectors."""
    cosine = real("cosine", cosine, -1, 1)
    shortest = 1e-6 * b.norm(dim=-1, keepdim=True)
    a = a / a.norm(dim=-1, keepdim=True)
    b = b - (a * b).sum(-1, keepdim=True) * a
    if not (b.norm(dim=-1, keepdim=True) > shortest).all():  # NaN is not either
        raise ValueError("a or b is zero, or they are parallel: they span no plane.")
    return torch.stack([a, cosine * a + (1 - cosine**2) ** 0.5 * b / b.norm(dim=-1, keepdim=True)])
