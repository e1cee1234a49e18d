"""Compare feature vectors: coupling, cosine, and the line through what they read (section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor
from torch.nn.functional import cosine_similarity

from helpers.models.checks import checked, whole


@checked
def coupling(
    y1: Float[Tensor, "*#batch d_model"], y2: Float[Tensor, "*#batch d_model"]
) -> Float[Tensor, "*batch"]:
    """C(y₁, y₂) = y₁·y₂/‖y₁‖²: the expected x·y₂ of an input with x·y₁ = 1 (theorem 2).

    Not symmetric. The paper's prose has the cosine in this place; its theorem and its code have
    this.

    Raises:
        TypeError, ValueError: a y₁ that is zero, or shapes that do not match.

    Example:
        >>> import torch
        >>> y1, y2 = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 5.0])
        >>> coupling(y1, y2), coupling(y2, y1)
        (tensor(0.5000), tensor(0.0769))
    """
    longest = y1.abs().amax(-1, keepdim=True)
    if (longest == 0).any():
        raise ValueError("the coupling from a zero vector is not defined.")
    y1, y2 = y1 / longest, y2 / longest  # squares would overflow behind several components
    return (y1 * y2).sum(-1) / y1.pow(2).sum(-1)


@checked
def cosine(
    y1: Float[Tensor, "*#batch d_model"], y2: Float[Tensor, "*#batch d_model"]
) -> Float[Tensor, "*batch"]:
    """Cosine of the angle between vectors; cosine² = C(y₁, y₂)·C(y₂, y₁).

    Raises:
        TypeError, ValueError: a zero vector, or shapes that do not match.
    """
    return cosine_similarity(_moderate(y1), _moderate(y2), dim=-1, eps=0)


def _moderate(y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """The same directions, with lengths whose squares neither overflow nor vanish."""
    lengths = y.norm(dim=-1)
    if lengths.numel() and 1e-15 < lengths.min() and lengths.max() < 1e15:
        return y
    longest = y.abs().amax(-1, keepdim=True)
    if (longest == 0).any():
        raise ValueError("the cosine with a zero vector is not defined.")
    return y / longest


@dataclass(frozen=True)
class BestFit:
    """Least-squares line b = slope·a + intercept, with 95 % BCa bootstrap intervals over groups.

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
    n_resamples: int = 1000,
    seed: int = 0,
) -> BestFit:
    """Fit a line to b over a; tokens of a prompt are not independent, so prompts are resampled.

    Args:
        a, b: what two feature vectors read; a row for each prompt, a column for each token.

    Raises:
        ValueError: shapes that differ, fewer than two groups, values that are not finite, or an a
            that never varies.

    Example:
        >>> line = best_fit([[0.0, 1.0], [2.0, 3.0]], [[1.0, 3.0], [5.0, 7.0]])
        >>> line.slope, line.intercept, line.n_groups
        (2.0, 1.0, 2)
    """
    n_resamples, seed = whole("n_resamples", n_resamples), whole("seed", seed, 0)
    a, b = _array("a", a), _array("b", b)
    if a.shape != b.shape or a.ndim != 2 or len(a) < 2 or not a.size:
        raise ValueError(
            f"a and b have shapes {a.shape} and {b.shape}; "
            "both must be [group, point], with at least two groups."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a and b must be finite.")
    if (a == a[0, 0]).all():
        raise ValueError(f"all values of a are identical, {a[0, 0]}: there is no line over it.")
    if (b == b[0, 0]).all():
        raise ValueError(f"all values of b are identical, {b[0, 0]}: r² is not defined.")
    line = stats.linregress(a.ravel(), b.ravel())
    # A line needs only sums of each group. Centred first: a sum of squares less a square loses
    # digits.
    u, v = a - a.mean(), b - b.mean()
    n = np.full_like(u, 1.0)
    sums = np.stack([values.sum(1) for values in (n, u, v, u * u, u * v, v * v)])

    def slope_and_r2(rows: np.ndarray, axis: int) -> np.ndarray:
        n, su, sv, suu, suv, svv = sums[:, rows].sum(-1)
        uu, uv, vv = suu - su * su / n, suv - su * sv / n, svv - sv * sv / n
        return np.stack([uv / uu, uv * uv / (uu * vv)])

    low, high = stats.bootstrap(
        (np.arange(len(a)),),
        slope_and_r2,
        vectorized=True,
        n_resamples=n_resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    ends = {"slope_low": low[0], "slope_high": high[0], "r2_low": low[1], "r2_high": high[1]}
    ends |= {"slope": line.slope, "r2": line.rvalue**2, "intercept": line.intercept}
    numbers = {name: float(value) for name, value in ends.items()}
    return BestFit(**numbers, n_points=a.size, n_groups=len(a))


def _array(name: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, float)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be an array of numbers: {error}.") from error
