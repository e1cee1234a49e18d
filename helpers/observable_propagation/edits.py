"""Edits of the residual stream: put on a model, or computed in closed form.

A constant vector moves every input alike, so the gap between two groups stays. An :class:`Erasure`
depends on the input: the direction it reads decides which inputs are changed by how much, and the
direction it writes decides which observables notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models import checks
from helpers.models.checks import checked, whole
from helpers.models.hooks import hooked, padded_ends
from helpers.models.resume import apply
from helpers.models.run import last_logits
from helpers.models.tokens import check_tokens, resolve_position

Vector = Float[Tensor, " d_model"]
Inputs = Float[Tensor, "*batch d_model"]


@contextmanager
@checked
def edited(
    model: TransformerBridge,
    layer: int,
    where: int | slice | Int[Tensor, " batch"],
    edit: Callable[[Inputs], Inputs],
) -> Iterator[TransformerBridge]:
    """The model with an edit of the residual stream in front of a layer, inside a ``with`` block.

    Args:
        layer: ``n_layers`` is the end, in front of ln_final.
        where: the token or tokens, for example ``-1`` or ``slice(1, None)``, or one for each
            prompt. A negative one counts from each prompt's own end.
        edit: from x, [batch pos d_model] or [batch d_model], to x̃ of the same shape; for example
            ``lambda x: x + v``.

    Raises:
        TypeError, ValueError: no such layer; inside the block, no such token.
    """
    n_layers = model.cfg.n_layers
    layer = whole("layer", layer, 0, n_layers + 1)
    name = f"blocks.{layer}.hook_resid_pre"
    if layer == n_layers:
        name = f"blocks.{layer - 1}.hook_resid_post"

    def replace(x: Tensor, hook) -> Tensor:
        x, at, rows = x.clone(), _tokens_of(model, where, x), slice(None)
        if isinstance(at, Tensor):
            rows = torch.arange(len(x), device=x.device)
        x[rows, at] = apply(edit, x[rows, at])
        return x

    with hooked(model, [(name, replace)]):
        yield model


def _tokens_of(
    model: TransformerBridge, where: int | slice | Tensor, x: Float[Tensor, "batch pos d_model"]
) -> int | slice | Tensor:
    """The tokens of a batch that ``where`` means."""
    ends, n_pos = padded_ends(model), x.shape[1]
    if isinstance(where, slice):
        if ends is not None and min(where.start or 0, where.stop or 0) < 0:
            raise ValueError(f"{where} counts from the end of prompts of several lengths.")
        if not len(range(n_pos)[where]):
            raise ValueError(f"{where} has none of {n_pos} tokens: nothing would be edited.")
        return where
    if isinstance(where, Tensor):
        if len(found := checks.rows(where, n_pos)) != len(x):
            raise ValueError(f"{len(found)} tokens are given for {len(x)} prompts.")
        return found.to(x.device)
    shortest = n_pos if ends is None else int(ends.min()) + 1
    position = whole("position", where, -shortest, shortest)
    return position if ends is None or position >= 0 else ends + 1 + position


@torch.no_grad()
def steer(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    layer: int,
    position: int,
    vectors: Float[Tensor, "vector d_model"],
    *,
    batch_size: int = 64,
) -> Float[Tensor, "vector batch d_vocab"]:
    """Last-token logits of every prompt with every vector added to one token (section 6.9).

    Args:
        layer: vectors are added to the residual stream in front of it.
        position: of the token; a negative one counts from each prompt's own end.
        batch_size: rows in one forward pass, a prompt with a vector each.

    Raises:
        ValueError: no such layer, or a prompt without such a position.
    """
    check_tokens(model, tokens)
    size, layer = whole("batch_size", batch_size), whole("layer", layer, 0, model.cfg.n_layers + 1)
    vectors = checks.vectors("vectors", vectors, model.cfg.d_model, axes=2)
    where, logits = resolve_position(tokens, position), []
    pairs = torch.cartesian_prod(torch.arange(len(vectors)), torch.arange(len(tokens)))
    for chunk in pairs.to(tokens.device).split(size):
        vector, prompt = chunk.unbind(1)
        added = vectors[vector]
        with edited(model, layer, where[prompt], lambda x, added=added: x + added):
            logits.append(last_logits(model, tokens[prompt]))
    return torch.cat(logits).view(len(vectors), len(tokens), -1)


@checked
def least_norm(features: Float[Tensor, "n d_model"], changes: Float[Tensor, " n"]) -> Vector:
    """The shortest δ with feature·δ = change for each feature vector: δ = Y(YᵀY)⁻¹t.

    Raises:
        ValueError: feature vectors that are linearly dependent.

    Example:
        >>> features = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
        >>> least_norm(features, torch.tensor([2.0, 0.0]))
        tensor([1., 1., 0.])
    """
    if torch.linalg.matrix_rank(features) < len(features):
        raise ValueError(
            "the feature vectors are linearly dependent: what one reads follows from the others."
        )
    return features.mT @ torch.linalg.solve(features @ features.mT, changes.to(features))


@checked
@dataclass(frozen=True)
class Erasure:
    """x̃ = x − s·((x − μ)·a) w, with strength s.

    Attributes:
        mean: μ, which is not changed.
        read: a, which says how much of it an input has.
        write: w, what is taken away for each unit of that.
    """

    mean: Vector
    read: Vector
    write: Vector

    def __call__(self, x: Inputs, strength: float = 1.0) -> Inputs:
        checks.vectors("x", x, len(self.read))
        strength = checks.real("strength", strength)
        amount = (x - self.mean.to(x)) @ self.read.to(x)
        return x - strength * amount[..., None] * self.write.to(x)


@checked
def projection(
    feature: Vector, mean: Vector, *, spared: Float[Tensor, "k d_model"] | None = None
) -> Erasure:
    """The shortest edit that sets what a feature vector reads to its value at the mean.

    Args:
        spared: feature vectors whose readings stay; w has no part in their span.

    Raises:
        ValueError: the feature vector lies in the span of the spared ones.

    Example:
        Nothing is left of what the one reads, and the other still reads 4:

        >>> feature, other = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])
        >>> erase = projection(feature, torch.zeros(2), spared=other[None])
        >>> erased = erase(torch.tensor([3.0, 4.0]))
        >>> feature @ erased, other @ erased
        (tensor(0.), tensor(4.))
    """
    write = _without(feature, spared)
    if write.norm() <= 1e-6 * feature.norm():
        raise ValueError(
            "the feature vector is zero or in the span of the spared ones, which would change too."
        )
    return Erasure(mean, feature, write / (write @ feature))


@checked
def mean_difference(x: Float[Tensor, "batch d_model"], group: Bool[Tensor, " batch"]) -> Erasure:
    """Remove inputs' component along d, the difference of two groups' means: a = d/‖d‖², w = d.

    Raises:
        ValueError: an empty group, or groups with the same mean.
    """
    d = _difference(x, group)
    return Erasure(x.mean(0), d / (d @ d), d)


@checked
def leace(
    x: Float[Tensor, "batch d_model"],
    group: Bool[Tensor, " batch"],
    *,
    shrinkage: float = 0.0,
    spared: Float[Tensor, "k d_model"] | None = None,
) -> Erasure:
    """LEACE (Belrose et al., 2023) for two groups: a = Σ⁻¹d/(dᵀΣ⁻¹d), w = d, in 64-bit floats.

    Of all affine maps that remove the covariance of inputs and group, as :func:`mean_difference`
    does, it changes inputs least in mean square.

    Args:
        shrinkage: γ in (1 − γ)Σ + γ·(trace Σ/d)·I, needed where there are fewer inputs than
            dimensions; the covariance is removed whatever γ is.
        spared: feature vectors whose readings stay; w is then d without its part in their span.

    Raises:
        ValueError: an empty group, groups with the same mean, a γ outside of [0, 1], or a Σ that is
            singular.
    """
    shrinkage = checks.real("shrinkage", shrinkage, 0, 1)
    # On the CPU, since not every accelerator has 64-bit floats.
    d = _difference(x, group).cpu().double()
    centred = (x - x.mean(0)).cpu().double()
    covariance = centred.mT @ centred / len(x)
    identity = torch.eye(len(d), dtype=d.dtype, device=d.device)
    typical = covariance.diagonal().mean()
    covariance = (1 - shrinkage) * covariance + shrinkage * typical * identity
    if shrinkage == 0 and torch.linalg.matrix_rank(covariance) < len(d):
        raise ValueError(
            f"{len(x)} inputs of {len(d)} dimensions have a singular covariance; "
            "set shrinkage above 0."
        )
    read = torch.linalg.solve(covariance, d)
    read = read / (read @ d)
    write = _without(d, None if spared is None else spared.cpu())
    return Erasure(x.mean(0), read.to(x.dtype).to(x), write.to(x.dtype).to(x))


def _difference(x: Tensor, group: Tensor) -> Vector:
    if group.all() or not group.any():
        raise ValueError("one of the two groups is empty: there is no difference to remove.")
    d = x[group].mean(0) - x[~group].mean(0)
    if d.norm() == 0:
        raise ValueError("the two groups have the same mean: there is no difference to remove.")
    return d


def _without(v: Vector, spared: Float[Tensor, "k d_model"] | None) -> Vector:
    """v without its part in the span of some vectors, which may be linearly dependent."""
    if spared is None:
        return v
    spared = checks.vectors("spared", spared, len(v), axes=2).to(v)
    return v - torch.linalg.pinv(spared) @ (spared @ v)
