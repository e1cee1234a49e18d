"""Random controls have what they promise, and follow from the generator alone."""

from __future__ import annotations

import pytest
import torch

from helpers.observable_propagation.controls import random_observables, random_pairs
from helpers.observable_propagation.coupling import cosine

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("wanted", [-0.4, 0.0, 0.9])
def test_random_pairs_have_the_cosine(wanted: float) -> None:
    pairs = random_pairs(50, 32, wanted, torch.Generator().manual_seed(1))
    assert torch.allclose(cosine(*pairs), torch.full((50,), wanted), atol=1e-5)
    assert torch.allclose(pairs.norm(dim=-1), torch.ones(2, 50), atol=1e-5)
    assert cosine(pairs[0, :1], pairs[0, 1:]).abs().max() < 0.9  # other directions each time


def test_random_observables_are_differences_of_two_columns(tiny) -> None:
    drawn = random_observables(tiny, 3, torch.Generator().manual_seed(2))
    tokens = torch.randint(tiny.cfg.d_vocab, (2, 3), generator=torch.Generator().manual_seed(2))
    for i, (plus, minus) in enumerate(tokens.T):
        assert torch.equal(drawn[i], tiny.W_U[:, plus] - tiny.W_U[:, minus])
