"""From a vector that reads a component's output to one that reads its input: norms, heads, MLPs.

A component f and a vector y that reads its output give the vector that reads its input: the
gradient of y·f(x) with attention scores held fixed (sections 4.1 to 4.3, observable propagation).
Norms can be left out, approximated or linearised, and an MLP is linearised at a point.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.blocks import mlp_output, norm_after, norm_before, per_head
from helpers.models.checks import checked, real, vectors, whole
from helpers.models.formulas import require
from helpers.models.norms import Norm

Vectors = Float[Tensor, "*n d_model"]
Point = Float[Tensor, " d_model"]


@runtime_checkable
class Norms(Protocol):
    """A way to treat the norms in front of components."""

    def pull_back(self, norm: Norm, y: Vectors) -> Vectors:
        """From vectors that read the norm's output to vectors that read its input."""


@dataclass(frozen=True)
class IgnoreNorms:
    """Norms left out; directions are nearly right and lengths are not (section 4.3.3)."""

    def pull_back(self, norm: Norm, y: Vectors) -> Vectors:
        return y


@checked
@dataclass(frozen=True)
class NormWeights:
    """(√d/‖x‖) w ⊙ y: the norm's weights and a measured length of its input (section 4.4, step 2).

    Attributes:
        input_norms: mean ‖x‖ by name of the norm; others are not divided (section 5.1.1).

    Raises:
        ValueError: a name that no norm has.
    """

    input_norms: Mapping[str, float | Float[Tensor, "*n 1"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.input_norms:
            if not re.fullmatch(r"ln_final|blocks\.\d+\.ln[12](_post)?", str(name)):
                raise ValueError(f"{name!r} is no norm: use ln_final, blocks.0.ln1, ....")

    def pull_back(self, norm: Norm, y: Vectors) -> Vectors:
        return norm.weighted(y, self.input_norms.get(norm.name, 1.0))


@checked
@dataclass(frozen=True)
class NormGradients:
    """The exact gradient of every norm at a point.

    Attributes:
        points: input by name of the norm; leading axes broadcast with those of the vectors.
    """

    points: Mapping[str, Vectors]

    def pull_back(self, norm: Norm, y: Vectors) -> Vectors:
        if norm.name not in self.points:
            raise ValueError(
                f"no point is given at which to take the gradient of {norm.name}; "
                f"there are {', '.join(self.points) or 'none'}."
            )
        return norm.gradient(y, self.points[norm.name])


IGNORE = IgnoreNorms()


def head_weights(
    model: TransformerBridge, layer: int
) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head d_model"]]:
    """W_V and W_O of a layer's heads; heads with a common key/value head each get its W_V.

    Raises:
        ValueError: a layer that the model does not have, or heads that are not given by these.
    """
    require(model, "values", "attention")
    attention = model.blocks[whole("layer", layer, 0, model.cfg.n_layers)].attn
    return per_head(model, attention.W_V), attention.W_O


@checked
def through_heads(
    model: TransformerBridge,
    layer: int,
    y: Vectors,
    *,
    norms: Norms = IGNORE,
    own_norm: bool = True,
) -> Float[Tensor, "*n head d_model"]:
    """W_V (W_O y) of each head: what it reads for the sake of y, which reads what heads write.

    Attention scores are left out: a source token's share is score · (feature · x) (section 4.3.1).
    The d_model × d_model matrix W_OV is never formed. A norm after attention and a residual
    multiplier, where a model has them, come first.

    Args:
        norms: how the norms around attention are treated.
        own_norm: if False, the vectors read the output of ln1 instead of its input.
    """
    W_V, W_O = head_weights(model, layer)
    y = to_output(model, layer, "attn", vectors("y", y, model.cfg.d_model, like=W_O), norms)
    features = torch.einsum("hme,...he->...hm", W_V, torch.einsum("hem,...m->...he", W_O, y))
    return to_input(model, layer, "attn", features, norms) if own_norm else features


@checked
def to_output(model: TransformerBridge, layer: int, part: str, y: Vectors, norms: Norms) -> Vectors:
    """From vectors that read the residual stream to ones that read what "attn" or "mlp" puts out:
    back through the residual multiplier and the norm after the part, if there are any.
    """
    after, scale = norm_after(model, layer, part), require(model, "norms").scales[part]
    y = y if scale == 1 else scale * y
    return y if after is None else norms.pull_back(after, y)


@checked
def to_input(model: TransformerBridge, layer: int, part: str, y: Vectors, norms: Norms) -> Vectors:
    """From vectors that read a part's own input to ones that read the stream in front of it."""
    before = norm_before(model, layer, part)
    return y if before is None else norms.pull_back(before, y)


@torch.enable_grad()
def mlp_gradient(model: TransformerBridge, layer: int, y: Vectors, x: Point) -> Vectors:
    """∇ₓ y·MLP(x) by autograd, for all y at once (section 4.3.4); x is behind the norm.

    Args:
        x: one point, or one for each y.

    Raises:
        ValueError: a layer that the model does not have, or an MLP that does not run by itself.
    """
    require(model, "mlp")
    y, x = vectors("y", y, model.cfg.d_model), vectors("x", x, model.cfg.d_model)
    if x.ndim > 1 and x.shape != y.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}: give one point, or one for each y.")
    flat = y.reshape(-1, y.shape[-1])
    points = x.detach().reshape(-1, x.shape[-1]).expand_as(flat).clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((mlp_output(model, layer, points) * flat).sum(), points)
    return gradient.view(y.shape)


class Boundary(NamedTuple):
    """A point between two inputs where a function takes a level: 0 on the decision boundary."""

    point: Point
    level: float


@checked
def decision_boundary(
    f: Callable[[Point], float | Tensor], x_minus: Point, x_plus: Point
) -> Boundary:
    """The point on the segment from x₋ to x₊ where f is 0 (section 4.3.4), by Brent's method.

    Where f has one sign at both ends, the point where it is halfway between their values.

    Args:
        f: continuous, for example ``lambda x: y @ mlp_output(model, 16, x)``.

    Raises:
        TypeError, ValueError: f has one value at both ends, or one that is no finite number.
    """

    def along(t: float) -> float:
        return real("f", f(x_minus + t * (x_plus - x_minus)))

    first, last = along(0.0), along(1.0)
    if first == last:
        raise ValueError(f"f is {first:.4g} at both ends, which bracket nothing.")
    level = (first + last) / 2 if first * last > 0 else 0.0
    t = brentq(lambda t: along(t) - level, 0.0, 1.0)
    return Boundary(x_minus + t * (x_plus - x_minus), level)
