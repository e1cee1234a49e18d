"""Compare feature vectors: coupling coefficient, cosine, and the best-fit line through what they read (section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor
from torch.nn.functional import cosine_similarity


def coupling(
    y1: Float[Tensor, "*batch d_model"], y2: Float[Tensor, "*batch d_model"]
) -> Float[Tensor, "*batch"]:
    """C(y₁, y₂) = y₁·y₂/‖y₁‖²: the expected x·y₂ of an input with x·y₁ = 1 (theorem 2).

    Not symmetric. (The paper's prose has the cosine in this place; its theorem and its code have this.)

    Raises:
        ValueError: a y₁ that is zero, on which nothing can be conditioned.

    Example:
        >>> import torch
        >>> y1, y2 = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 5.0])
        >>> coupling(y1, y2), coupling(y2, y1)
        (tensor(0.5000), tensor(0.0769))
    """
    square = y1.pow(2).sum(-1)
    if (square == 0).any():
        raise ValueError("the coupling from a zero vector is not defined.")
    return (y1 * y2).sum(-1) / square


def cosine(
    y1: Float[Tensor, "*batch d_model"], y2: Float[Tensor, "*batch d_model"]
) -> Float[Tensor, "*batch"]:
    """Cosine of the angle between vectors; cosine² = C(y₁, y₂)·C(y₂, y₁).

    Raises:
        ValueError: a zero vector, which has no direction.
    """
    if (y1.norm(dim=-1) == 0).any() or (y2.norm(dim=-1) == 0).any():
        raise ValueError("a zero vector has no direction, so no cosine.")
    return cosine_similarity(y1, y2, dim=-1, eps=0)


@dataclass(frozen=True)
class BestFit:
    """Least-squares line b = slope·a + intercept, with percentile bootstrap intervals over whole groups.

    Attributes:
        slope, slope_low, slope_high: in units of b per unit of a.
        r2, r2_low, r2_high: squared correlation.
        intercept: in units of b.
        n_points, n_groups: sizes.
    """

    slope: float
    slope_low: float
    slope_high: float
    r2: float
    r2_low: float
    r2_high: float
    intercept: float
    n_points: int
    n_groups: int


def best_fit(
    a: Float[ArrayLike, "group point"],
    b: Float[ArrayLike, "group point"],
    *,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> BestFit:
    """Fit a line to b over a. Tokens of one prompt are not independent, so the bootstrap draws whole prompts.

    Args:
        a, b: what two feature vectors read; one row a prompt, one column a token.
        confidence: of the intervals.
        n_resamples: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that differ, fewer than two groups, values that are not finite, or an a that never varies.

    Example:
        >>> line = best_fit([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]])
        >>> line.slope, line.intercept, line.n_groups
        (2.0, 1.0, 3)
    """
    a, b = (
        np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=float)
        for values in (a, b)
    )
    if a.shape != b.shape or a.ndim != 2 or len(a) < 2:
        raise ValueError(
            f"a and b have shapes {a.shape} and {b.shape}; both must be [group, point] with two groups or more."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a and b must be finite.")
    line = stats.linregress(a.ravel(), b.ravel())  # raises ValueError where a never varies
    # Sums of a group are all that a line needs of it. Centred first: a sum of squares minus a square loses digits.
    u, v = a - a.mean(), b - b.mean()
    sums = np.stack(
        [
            np.full(len(a), a.shape[1]),
            u.sum(1),
            v.sum(1),
            (u * u).sum(1),
            (u * v).sum(1),
            (v * v).sum(1),
        ]
    )

    def slope_and_r2(rows: np.ndarray, axis: int) -> np.ndarray:
        n, su, sv, suu, suv, svv = sums[:, rows].sum(-1)
        uu, uv, vv = suu - su * su / n, suv - su * sv / n, svv - sv * sv / n
        return np.stack([uv / uu, uv * uv / (uu * vv)])

    interval = stats.bootstrap(
        (np.arange(len(a)),),
        slope_and_r2,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=n_resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    (slope_low, r2_low), (slope_high, r2_high) = interval.low, interval.high
    return BestFit(
        *map(
            float,
            (line.slope, slope_low, slope_high, line.rvalue**2, r2_low, r2_high, line.intercept),
        ),
        a.size,
        len(a),
    )
