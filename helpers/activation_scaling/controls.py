"""Controls: the same numbers at random places, as large as what was learned; each number alone."""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.activation_scaling.interventions import Intervention
from helpers.models.checks import checked, real, whole


@checked
def permuted(values: Tensor, seed: int | torch.Generator, *, dim: int | None = None) -> Tensor:
    """A random permutation of all entries, or of the slices along one axis; drawn on the CPU.

    Example:
        >>> permuted(torch.arange(6).view(2, 3), seed=0)
        tensor([[2, 5, 3],
                [0, 1, 4]])
    """
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    axis = None if dim is None else whole("dim", dim, -values.ndim, values.ndim)
    length = values.numel() if axis is None else values.shape[axis]
    order = torch.randperm(length, generator=generator).to(values.device)
    if dim is None:
        return values.flatten()[order].view(values.shape)
    return values.index_select(dim, order)


@checked
def shuffled(intervention: Intervention, seed: int = 0, *, dim: int | None = None) -> Intervention:
    """A copy with θ permuted within each site: the same numbers at random points.

    Args:
        intervention: stays as it is.
        seed: of the permutations, which are drawn site by site.
        dim: permute along this axis of θ only; −1 permutes the entries of every vector alike.

    Raises:
        TypeError, ValueError: a seed that is no whole number from 0 on.
    """
    seed = whole("seed", seed, 0)
    control = _like(intervention)
    generator = torch.Generator().manual_seed(seed)
    for site, theta in intervention.theta.items():
        control.theta[site].data = permuted(theta.data, generator, dim=dim)
    return control


@checked
def one_by_one(intervention: Intervention, least: float) -> list[Intervention]:
    """For each entry of θ of at least this size an intervention that has it alone.

    In the order of the sites, and within a site of its points.
    """
    least, alone = real("least", least, 0), []
    for site, theta in intervention.theta.items():
        for place in map(tuple, (theta.detach().abs() >= least).nonzero().tolist()):
            one = _like(intervention)
            one.theta[site].data[place] = theta.detach()[place]
            alone.append(one)
    return alone


def _like(intervention: Intervention) -> Intervention:
    """A new one of the same class, with θ zero."""
    theta = intervention.vec()
    try:
        return type(intervention)(intervention.points, dtype=theta.dtype, device=theta.device)
    except TypeError as error:
        kind = type(intervention).__name__
        raise TypeError(f"the entries of θ of {kind} belong to no places.") from error
