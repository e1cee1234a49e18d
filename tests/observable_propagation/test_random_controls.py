"""Random controls have what they promise, and follow from the generator alone."""

from __future__ import annotations

import pytest
import torch

from helpers.observable_propagation.controls import (
    observable_pairs,
    random_observables,
    with_cosine,
)
from helpers.observable_propagation.coupling import cosine

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("wanted", [-0.4, 0.0, 0.9])
def test_random_pairs_have_the_cosine(tiny, wanted: float) -> None:
    pairs = observable_pairs(tiny, 50, wanted, torch.Generator().manual_seed(1))
    assert torch.allclose(cosine(*pairs), pairs.new_full((50,), wanted), atol=1e-5)
    assert torch.allclose(pairs.norm(dim=-1), pairs.new_ones(2, 50), atol=1e-5)
    others = cosine(pairs[0, :1], pairs[0, 1:]).abs()
    assert others.median() < 0.9  # other directions each time


def test_the_first_of_a_pair_keeps_its_direction_and_the_second_its_plane(tiny) -> None:
    a, b = random_observables(tiny, 2, torch.Generator().manual_seed(3))
    first, second = with_cosine(a, b, 0.5)
    assert torch.allclose(cosine(first, a), a.new_tensor(1.0))
    assert torch.linalg.matrix_rank(torch.stack([a, b, second])) == 2


def test_random_observables_are_differences_of_two_columns(tiny) -> None:
    drawn = random_observables(tiny, 300, torch.Generator().manual_seed(2))
    assert (drawn.norm(dim=-1) > 0).all()  # 300 pairs of 101 tokens, none of one token twice
    columns = (tiny.W_U.T[:, None] - tiny.W_U.T).flatten(0, 1)  # all differences
    distances = torch.cdist(drawn, columns).min(dim=1).values
    assert distances.max() < 1e-5
    assert torch.cdist(drawn + 1, columns).min() > 1e-2
