"""Controls have the same numbers at other places."""

from __future__ import annotations

import pytest
import torch

from helpers.activation_scaling.controls import one_by_one, permuted, shuffled
from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.activation_scaling.points import Points

pytestmark = pytest.mark.unit


def ordered(values: torch.Tensor, dim: int = -1) -> torch.Tensor:
    return values.sort(dim).values


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_a_shuffled_intervention_has_the_same_numbers_of_each_site_at_other_points(tiny, kind):
    learned = kind(Points.of(tiny, 5), dtype=torch.float64)
    learned.reset(0, std=1.0)
    control = shuffled(learned, seed=1)
    for site, theta in learned.theta.items():
        assert not control.theta[site].equal(theta)
        assert ordered(control.theta[site].flatten()).equal(ordered(theta.flatten()))
    again = shuffled(learned, seed=1)
    assert again.vec().equal(control.vec()) and not shuffled(learned, seed=2).vec().equal(
        control.vec()
    )


def test_sites_of_one_shape_are_permuted_differently(tiny):
    learned = ActivScalar(Points.of(tiny, 5), dtype=torch.float64)
    first, second = list(learned.theta.values())[:2]
    first.data = torch.arange(first.numel(), dtype=torch.float64).view(first.shape)
    second.data = first.data.clone()
    control = list(shuffled(learned, seed=1).theta.values())
    assert not control[0].equal(control[1])


def test_vectors_shuffled_along_their_entries_stay_at_their_points(tiny):
    learned = SteerVec(Points.of(tiny, 5), dtype=torch.float64)
    learned.reset(0, std=1.0)
    control = shuffled(learned, dim=-1)
    for site, theta in learned.theta.items():
        assert not control.theta[site].equal(theta)
        assert ordered(control.theta[site]).equal(ordered(theta))
        swapped = torch.stack([theta[0, 0], control.theta[site][0, 0]])
        order = (swapped[1][:, None] == swapped[0]).float().argmax(-1)
        assert theta[..., order].equal(control.theta[site]), "one permutation for all vectors"


def test_a_permutation_of_all_entries_mixes_the_rows():
    values = torch.arange(24).view(2, 3, 4)
    mixed = permuted(values, seed=0)
    assert mixed.shape == values.shape and not ordered(mixed).equal(values)
    assert ordered(mixed.flatten()).equal(values.flatten())


def test_large_entries_stand_alone_and_add_up_to_all_of_them(tiny):
    learned = ActivScalar(Points.of(tiny, 5), dtype=torch.float64)
    learned.reset(0, std=1.0)
    alone = one_by_one(learned, 0.5)
    large = learned.vec().detach() * (learned.vec().detach().abs() >= 0.5)
    assert len(alone) == large.count_nonzero() > 1
    assert all(one.vec().count_nonzero() == 1 for one in alone)
    assert torch.stack([one.vec().detach() for one in alone]).sum(0).equal(large)
