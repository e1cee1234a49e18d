"""Which heads lead a map, and what they are called."""

from __future__ import annotations

import pytest
import torch

from helpers.observable_propagation.heads import leading, listed, name_of, names_of, of_heads

pytestmark = pytest.mark.unit

MAP = torch.tensor([[0.1, 3.0, -1.0], [2.0, 0.5, 0.2]])  # two layers of three heads


def test_the_largest_values_lead_in_their_order() -> None:
    assert leading(MAP, 2) == [(0, 1), (1, 0)]
    assert len(leading(MAP, 100)) == MAP.numel()
    with pytest.raises(ValueError, match="k"):
        leading(MAP, 0)


def test_values_are_those_of_the_heads() -> None:
    heads = leading(MAP, 3)
    assert of_heads(MAP, heads).tolist() == [3.0, 2.0, 0.5]
    assert of_heads(torch.stack([MAP, -MAP]), heads)[1].tolist() == [-3.0, -2.0, -0.5]


def test_heads_have_names() -> None:
    assert name_of((1, 0)) == "1.0" and names_of([(0, 1), (1, 0)]) == "0.1, 1.0"
    assert listed([(0, 1)], MAP, "{} {:.2f}") == "0.1 3.00"
