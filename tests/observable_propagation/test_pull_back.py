"""Norms, MLPs and decision boundaries that vectors pass through."""

from __future__ import annotations

import pytest
import torch

from helpers.models.norms import Norm
from helpers.observable_propagation.pull_back import (
    IgnoreNorms,
    NormGradients,
    NormWeights,
    decision_boundary,
    mlp_gradient,
    mlp_output,
)

pytestmark = pytest.mark.unit


def draw(model, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, model.cfg.d_model, generator=generator, dtype=torch.float64)


def test_the_three_ways_to_treat_norms_are_what_they_say(tiny) -> None:
    norm, (x, y) = Norm.of(tiny, "ln_final"), draw(tiny, 2)
    root = tiny.cfg.d_model**0.5
    assert torch.equal(IgnoreNorms().pull_back(norm, y), y)
    measured = NormWeights({"ln_final": 7.0}).pull_back(norm, y)
    torch.testing.assert_close(measured, root / 7 * norm.weight * y)
    torch.testing.assert_close(NormWeights().pull_back(norm, y), root * norm.weight * y)
    assert torch.equal(NormGradients({"ln_final": x}).pull_back(norm, y), norm.gradient(y, x))
    with pytest.raises(ValueError, match="no point is given .* ln_final; there are blocks.0.ln1"):
        NormGradients({"blocks.0.ln1": x}).pull_back(norm, y)


def test_an_mlps_gradient_is_its_finite_difference(tiny) -> None:
    x, y, direction = draw(tiny, 3)
    step = 1e-5 * direction
    difference = (mlp_output(tiny, 1, x + step) - mlp_output(tiny, 1, x - step)) @ y / 2e-5
    ours = mlp_gradient(tiny, 1, y, x)
    torch.testing.assert_close(ours @ direction, difference, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(mlp_gradient(tiny, 1, y, -x) @ direction, difference, rtol=1e-2)
    both = mlp_gradient(tiny, 1, torch.stack([y, 2 * y]), x)
    torch.testing.assert_close(both, torch.stack([ours, 2 * ours]))


def test_the_boundary_of_an_mlp_is_where_the_observable_is_zero(tiny) -> None:
    x, y = draw(tiny, 2)
    centre, direction = mlp_output(tiny, 1, x), mlp_gradient(tiny, 1, y, x)
    direction = direction / direction.norm()

    def f(point):  # shifted, so that it changes sign across x
        return (mlp_output(tiny, 1, point) - centre) @ y

    ends = x - direction, x + 2 * direction
    found = decision_boundary(f, *ends)
    assert f(ends[0]) < 0 < f(ends[1]) and found.level == 0
    assert abs(f(found.point)) < 1e-9
    torch.testing.assert_close(decision_boundary(f, *ends[::-1]).point, found.point)


@pytest.mark.parametrize(
    ("f", "minus", "plus", "point", "level"),
    [
        (lambda x: x[0], -1.0, 3.0, 0.0, 0.0),
        (lambda x: x[0], 0.0, 3.0, 0.0, 0.0),  # an end on the boundary
        (lambda x: x[0] ** 2, 1.0, 3.0, 5**0.5, 5.0),  # one sign: halfway between 1 and 9
    ],
)
def test_a_boundary_is_at_zero_and_halfway_where_there_is_none(f, minus, plus, point, level):
    ends = (torch.tensor([end], dtype=torch.float64) for end in (minus, plus))
    found = decision_boundary(f, *ends)
    assert found.level == level and found.point.item() == pytest.approx(point)


def test_a_function_with_one_value_at_both_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="bracket nothing"):
        decision_boundary(lambda x: x[0] ** 2, torch.tensor([-1.0]), torch.tensor([1.0]))
