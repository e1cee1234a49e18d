"""Coupling, cosine and best-fit lines against theory and other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.observable_propagation.coupling import best_fit, cosine, coupling

pytestmark = pytest.mark.unit
N = 200_000


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y1 = torch.randn(48, generator=generator, dtype=torch.float64)
    return y1, 0.6 * y1 + 0.5 * torch.randn(48, generator=generator, dtype=torch.float64)


def test_coupling_is_what_theorem_2_expects_of_inputs_on_the_slice(pair) -> None:
    y1, y2 = pair
    k, s, square = 2.0, 5.0, y1 @ y1
    u = torch.randn(N, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u -= (u @ y1)[:, None] * y1 / square
    x = k * y1 / square + u * ((s**2 - k**2 / square) ** 0.5 / u.norm(dim=1, keepdim=True))
    torch.testing.assert_close(x.norm(dim=1), torch.full((N,), s, dtype=torch.float64))
    reads = x @ y2
    error = reads.std() / N**0.5
    assert abs(reads.mean() - k * coupling(y1, y2)) < 4 * error
    assert abs(reads.mean() - k * cosine(y1, y2)) > 10 * error  # the paper's prose
    assert abs(reads.mean() - k * coupling(y2, y1)) > 10 * error


def test_the_two_couplings_of_each_pair_multiply_to_the_squared_cosine(pair) -> None:
    y1, y2 = pair
    product = coupling(y1, y2) * coupling(y2, y1)
    torch.testing.assert_close(product, cosine(y1, y2) ** 2)
    assert abs(product - cosine(y1, y2)) > 0.01  # the paper has cos θ
    batch = coupling(torch.stack([y1, y2]), torch.stack([y2, y1]))
    torch.testing.assert_close(batch, torch.stack([coupling(y1, y2), coupling(y2, y1)]))


def test_a_zero_vector_is_refused(pair) -> None:
    y1, _ = pair
    for refused in (lambda: coupling(0 * y1, y1), lambda: cosine(y1, 0 * y1)):
        with pytest.raises(ValueError, match="zero vector"):
            refused()
    assert coupling(y1, torch.zeros_like(y1)) == 0


@pytest.mark.parametrize("size", [1e-25, 1e20, 1e30])
def test_vectors_whose_squares_overflow_or_vanish_keep_their_cosine_and_coupling(size) -> None:
    y1, y2 = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [1.0, 1.0]])
    assert not 0 < (size * y1).pow(2).sum() < torch.inf  # the plain formulas give nan, 0 or inf
    torch.testing.assert_close(cosine(size * y1, size * y2), torch.tensor([0.96, 0.5**0.5]))
    torch.testing.assert_close(coupling(size * y1, size * y2), torch.tensor([0.96, 1.0]))


def test_isotropic_inputs_give_the_coupling_as_slope_and_the_squared_cosine_as_r2(pair) -> None:
    y1, y2 = pair
    x = torch.randn(200, 500, 48, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fit = best_fit(x @ y1, x @ y2)
    # Within an interval's width, twice its reach: one draw in ten thousand is not.
    assert abs(fit.slope - coupling(y1, y2)) < fit.slope_high - fit.slope_low < 0.1
    assert abs(fit.r2 - cosine(y1, y2) ** 2) < fit.r2_high - fit.r2_low < 0.1
    assert not fit.r2_low < cosine(y1, y2) < fit.r2_high
    assert (fit.n_points, fit.n_groups) == (100_000, 200)


def test_the_line_is_numpys() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(1e3, 1, (12, 7))  # far from zero: sums of squares would lose digits
    b = 0.3 * a + rng.normal(0, 0.5, a.shape)
    fit = best_fit(a, b)
    expected = np.polyfit(a.ravel(), b.ravel(), 1)
    assert [fit.slope, fit.intercept] == pytest.approx(expected.tolist(), rel=1e-6)
    assert fit.r2 == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1] ** 2)
    assert fit.slope_low < fit.slope < fit.slope_high and fit.r2_low < fit.r2 < fit.r2_high
    assert fit == best_fit(a, b) != best_fit(a, b, seed=1)


def test_the_interval_is_wider_where_points_of_a_group_move_together() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 20))
    alone = best_fit(a, a + rng.normal(size=a.shape))
    same = a.mean(1, keepdims=True) + 0 * a
    together = best_fit(same, same + rng.normal(size=(30, 1)))
    assert together.slope_high - together.slope_low > 3 * (alone.slope_high - alone.slope_low)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((3, 4)), np.ones((4, 3)), "shapes"),
        (np.ones((1, 4)), np.ones((1, 4)), "two groups"),
        (np.ones(4), np.ones(4), "two groups"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), "finite"),
        (np.ones((2, 2)), np.arange(4.0).reshape(2, 2), "identical"),
    ],
)
def test_bad_input_is_refused(a, b, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        best_fit(a, b)
