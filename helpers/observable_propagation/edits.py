"""Edits of activations in closed form: move what observables read, or take the difference between two groups out of it.

A constant vector moves every input alike, so the gap between two groups stays where it was. An :class:`Erasure` depends on
the input: it reads one direction a and writes another one w. What it reads decides which inputs are changed by how much,
what it writes decides which observables notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

Vector = Float[Tensor, " d_model"]
Inputs = Float[Tensor, "*batch d_model"]


def least_norm(features: Float[Tensor, "n d_model"], changes: Float[Tensor, " n"]) -> Vector:
    """The shortest δ with feature·δ = change for each of n feature vectors: δ = Y(YᵀY)⁻¹t, the columns of Y being features.

    Raises:
        ValueError: feature vectors that are linearly dependent, so that not every combination of changes can be had.

    Example:
        >>> least_norm(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]), torch.tensor([2.0, 0.0]))
        tensor([1., 1., 0.])
    """
    if torch.linalg.matrix_rank(features) < len(features):
        raise ValueError(
            "these feature vectors are linearly dependent: what one of them reads follows from the others."
        )
    return features.mT @ torch.linalg.solve(features @ features.mT, changes.to(features))


@dataclass(frozen=True)
class Erasure:
    """x̃ = x − s·((x − μ)·a) w, with strength s.

    Attributes:
        mean: μ, where nothing is changed.
        read: a, which says how much of it an input has.
        write: w, what is taken away for each unit of that.
    """

    mean: Vector
    read: Vector
    write: Vector

    def __call__(self, x: Inputs, strength: float = 1.0) -> Inputs:
        amount = (x - self.mean.to(x)) @ self.read.to(x)
        return x - strength * amount[..., None] * self.write.to(x)


def projection(
    feature: Vector, mean: Vector, *, spared: Float[Tensor, "k d_model"] | None = None
) -> Erasure:
    """Sets what one feature vector reads to its value at the mean, and leaves what the spared ones read untouched.

    Of all edits that do this it is the shortest: w is the feature vector's part that no spared one sees.

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
    write = _off(feature, spared)
    if write.norm() < 1e-6 * feature.norm():
        raise ValueError(
            "this feature vector lies in the span of the spared ones: it cannot be changed without changing them."
        )
    return Erasure(mean, feature, write / (write @ feature))


def mean_difference(
    x: Float[Tensor, "batch d_model"],
    group: Bool[Tensor, " batch"],
    *,
    spared: Float[Tensor, "k d_model"] | None = None,
) -> Erasure:
    """Removes inputs' components along d, the difference of the two groups' means: a = d/‖d‖², w = d.

    Args:
        x: inputs to fit on.
        group: which of them belong to the first group.
        spared: feature vectors whose readings shall stay; w is then d without its part in their span.

    Raises:
        ValueError: a group that is empty, or groups whose means do not differ.
    """
    d = _difference(x, group)
    return Erasure(x.mean(0), d / (d @ d), _off(d, spared))


def leace(
    x: Float[Tensor, "batch d_model"],
    group: Bool[Tensor, " batch"],
    *,
    shrinkage: float = 0.0,
    spared: Float[Tensor, "k d_model"] | None = None,
) -> Erasure:
    """LEACE (Belrose et al., 2023) for two groups: a = Σ⁻¹d/(dᵀΣ⁻¹d), w = d.

    Removes the covariance of inputs and group, as :func:`mean_difference` does, and of all affine maps that do it is the one
    that changes inputs least in mean square. Computed in 64-bit floats.

    Args:
        x: inputs to fit on.
        group: which of them belong to the first group.
        shrinkage: γ between 0 and 1: Σ becomes (1 − γ)Σ + γ·(trace Σ/d)·I, which is needed where there are fewer inputs
            than dimensions. The covariance with the group is removed whatever γ is.
        spared: feature vectors whose readings shall stay; w is then d without its part in their span.

    Raises:
        ValueError: a group that is empty, groups whose means do not differ, a γ outside of 0 to 1, or a Σ that cannot be
            inverted.
    """
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage = {shrinkage} must be between 0 and 1.")
    d = _difference(x, group).double()
    centred = (x - x.mean(0)).double()
    covariance = centred.mT @ centred / len(x)
    typical = covariance.diagonal().mean()
    covariance = (1 - shrinkage) * covariance + shrinkage * typical * torch.eye(
        len(d), dtype=d.dtype, device=d.device
    )
    if shrinkage == 0 and torch.linalg.matrix_rank(covariance) < len(d):
        raise ValueError(
            f"{len(x)} inputs of {len(d)} dimensions have a covariance that cannot be inverted; set shrinkage above 0."
        )
    read = torch.linalg.solve(covariance, d)
    read = read / (read @ d)
    return Erasure(
        x.mean(0), read.to(x), _off(d, None if spared is None else spared.double()).to(x)
    )


@contextmanager
def edited(
    model: TransformerBridge, layer: int, where: int | slice, edit: Callable[[Inputs], Inputs]
) -> Iterator[TransformerBridge]:
    """The model with an edit of the residual stream in front of a layer, inside a ``with`` block; afterwards it is as before.

    Args:
        model: whose residual stream.
        layer: in front of which layer; ``n_layers`` is the end, in front of ln_final.
        where: the token or tokens, for example ``-1`` or ``slice(1, None)``.
        edit: x [batch, tokens, d_model] or [batch, d_model] -> x̃ of the same shape.

    Raises:
        ValueError: no such layer.
    """
    n_layers = model.cfg.n_layers
    if not 0 <= layer <= n_layers:
        raise ValueError(
            f"layer {layer} is not there: layers run from 0 to {n_layers - 1}, and {n_layers} is the end."
        )
    name = (
        f"blocks.{layer}.hook_resid_pre"
        if layer < n_layers
        else f"blocks.{layer - 1}.hook_resid_post"
    )

    def replace(x: Tensor, hook) -> Tensor:
        x = x.clone()
        x[:, where] = edit(x[:, where])
        return x

    with model.hooks(fwd_hooks=[(name, replace)]):
        yield model


def _difference(x: Tensor, group: Tensor) -> Vector:
    if group.all() or not group.any():
        raise ValueError("one of the two groups is empty: there is no difference to remove.")
    d = x[group].mean(0) - x[~group].mean(0)
    if d.norm() == 0:
        raise ValueError("the two groups have one mean: there is no difference to remove.")
    return d


def _off(v: Vector, spared: Float[Tensor, "k d_model"] | None) -> Vector:
    """v without its part in the span of some vectors, which may depend on each other."""
    if spared is None:
        return v
    spared = spared.to(v)
    return v - torch.linalg.pinv(spared) @ (spared @ v)
