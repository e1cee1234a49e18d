"""Feature vectors of paths: chains of heads and MLPs, attention scores held fixed (sections 4.2 to 4.4).

A path is written from input to output, ``13.3 → MLP16 → 17.14``: head 13.3 reads the residual stream, MLP 16 reads what it
wrote, head 17.14 reads what the MLP wrote, and that goes to the logits. Going back along it, each component turns the
vector that reads its output into one that reads its input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.norms import Norm, NormGradients, Norms
from helpers.models.run import read_activations
from helpers.observable_propagation.features import IGNORE, through_heads


@dataclass(frozen=True)
class Component:
    """One stage of a path: head ``layer.head``, or the MLP of a layer (head is None)."""

    layer: int
    head: int | None = None

    @property
    def norm(self) -> str:
        """Name of the norm in front of it."""
        return f"blocks.{self.layer}.{'ln2' if self.head is None else 'ln1'}"

    def __str__(self) -> str:
        return f"MLP{self.layer}" if self.head is None else f"{self.layer}.{self.head}"


Path = tuple[Component, ...]


def path(model: TransformerBridge, text: str) -> Path:
    """The path that a text means, from input to output: ``"13.3 → MLP16 → 17.14"``; ``->`` will do for the arrow.

    Raises:
        ValueError: a part that is neither a head nor an MLP, is not in the model, or does not come after the part before.
    """
    components = []
    for part in re.split(r"\s*(?:→|->)\s*", text.strip()):
        if head := re.fullmatch(r"(\d+)\.(\d+)", part):
            components.append(Component(int(head[1]), int(head[2])))
        elif mlp := re.fullmatch(r"MLP\s?(\d+)", part):
            components.append(Component(int(mlp[1])))
        else:
            raise ValueError(
                f"{part!r} in path {text!r} is neither a head like 13.3 nor an MLP like MLP16."
            )
    for component in components:
        if component.layer >= model.cfg.n_layers or (component.head or 0) >= model.cfg.n_heads:
            raise ValueError(
                f"{component} is not in {model.cfg.model_name}: {model.cfg.n_layers} layers of {model.cfg.n_heads} heads."
            )
    for earlier, later in zip(components, components[1:]):
        if not feeds(model, earlier, later):
            raise ValueError(
                f"{later} cannot read what {earlier} wrote: it does not come after it in {model.cfg.model_name}."
            )
    return tuple(components)


def feeds(model: TransformerBridge, earlier: Component, later: Component) -> bool:
    """Whether one component's output is part of another's input; in one layer only from a head to the MLP, if at all."""
    if earlier.layer != later.layer:
        return earlier.layer < later.layer
    parallel = getattr(
        model.cfg, "parallel_attn_mlp", False
    )  # GPT-NeoX: both read the same residual stream
    return earlier.head is not None and later.head is None and not parallel


def show(chain: Path) -> str:
    """A path as text.

    Example:
        >>> show((Component(13, 3), Component(16), Component(17, 14)))
        '13.3 → MLP16 → 17.14'
    """
    return " → ".join(map(str, chain))


def path_feature(
    model: TransformerBridge,
    chain: Path,
    m: Float[Tensor, "*n d_model"],
    *,
    norms: Norms = IGNORE,
    mlp_points: Mapping[int, Float[Tensor, " d_model"]] | None = None,
    own_norm: bool = True,
) -> Float[Tensor, "*n d_model"]:
    """The feature vector of a path, for observables m = W_U n.

    Attention scores are left out, as for a single head: multiply by :attr:`Reading.score` for one prompt's gradient.

    Args:
        model: whose components.
        chain: see :func:`path`.
        m: reads the output of ln_final.
        norms: how the norms are dealt with; one before each component, and ln_final.
        mlp_points: layer -> where its MLP is linearised, a vector in the MLP's own input (after ln2). With
            ``NormGradients`` an MLP that is not given here is linearised at the norm's output at its point.
        own_norm: if False the vector reads the output of the first component's norm, if True its input.

    Raises:
        ValueError: no point for an MLP or a norm that needs one.
    """
    y = norms.pull_back(Norm.of(model, "ln_final"), m)
    for number, component in reversed(list(enumerate(chain))):
        with_norm = own_norm or number > 0
        if component.head is not None:
            y = through_heads(model, component.layer, y, norms=norms, own_norm=with_norm)[
                ..., component.head, :
            ]
        else:
            norm = Norm.of(model, component.norm)
            y = mlp_gradient(
                model, component.layer, y, _mlp_point(component, norm, norms, mlp_points or {})
            )
            y = norms.pull_back(norm, y) if with_norm else y
    return y


def _mlp_point(
    component: Component, norm: Norm, norms: Norms, given: Mapping[int, Tensor]
) -> Tensor:
    if component.layer in given:
        return given[component.layer]
    if isinstance(norms, NormGradients) and norm.name in norms.points:
        return norm(norms.points[norm.name])
    raise ValueError(
        f"no point is given at which to linearise {component}; pass mlp_points={{{component.layer}: ...}}."
    )


def mlp_output(
    model: TransformerBridge, layer: int, x: Float[Tensor, "*n d_model"]
) -> Float[Tensor, "*n d_model"]:
    """MLP(x), for x in its own input (after ln2)."""
    return model.blocks[layer].mlp(x.reshape(-1, 1, x.shape[-1])).reshape(x.shape)


@torch.enable_grad()
def mlp_gradient(
    model: TransformerBridge,
    layer: int,
    y: Float[Tensor, "*n d_model"],
    x: Float[Tensor, " d_model"],
) -> Float[Tensor, "*n d_model"]:
    """∇ₓ y·MLP(x) by autograd, for every y at once (section 4.3.4); biases are part of MLP."""
    flat = y.reshape(-1, y.shape[-1])
    points = x.detach().expand_as(flat).clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((mlp_output(model, layer, points) * flat).sum(), points)
    return gradient.view(y.shape)


@dataclass(frozen=True)
class Reading:
    """What the components of a path read on one prompt.

    Attributes:
        points: name of a norm -> its input at the token that its component reads, for ``NormGradients``.
        score: product of the heads' attention scores along the path, no unit.
    """

    points: dict[str, Float[Tensor, " d_model"]]
    score: float


def reading(
    model: TransformerBridge, chain: Path, tokens: Int[Tensor, " pos"], positions: Sequence[int]
) -> Reading:
    """Norm inputs and attention scores along a path on one prompt.

    Args:
        model: whose components.
        chain: see :func:`path`.
        tokens: one prompt.
        positions: the token that each component reads, and last the one whose logits are measured. An MLP reads and
            writes one token.

    Raises:
        ValueError: a number of positions that does not match, or positions that no information can pass through.
    """
    if len(positions) != len(chain) + 1:
        raise ValueError(
            f"{show(chain)} needs {len(chain) + 1} positions, one a component and the last one; got {len(positions)}."
        )
    n_pos = tokens.shape[-1]
    positions = [
        position % n_pos if -n_pos <= position < n_pos else position for position in positions
    ]
    for component, here, there in zip(chain, positions, positions[1:]):
        if not 0 <= here <= there < n_pos or (component.head is None and here != there):
            raise ValueError(
                f"{component} cannot move anything from token {here} to token {there} of a prompt of {n_pos}."
            )
    patterns = {f"blocks.{c.layer}.attn.hook_pattern" for c in chain if c.head is not None}
    names = [f"{component.norm}.hook_in" for component in chain] + ["ln_final.hook_in", *patterns]
    values, _ = read_activations(model, tokens[None], names)
    points = {c.norm: values[f"{c.norm}.hook_in"][0, here] for c, here in zip(chain, positions)}
    points["ln_final"] = values["ln_final.hook_in"][0, positions[-1]]
    scores = [
        values[f"blocks.{c.layer}.attn.hook_pattern"][0, c.head, there, here].item()
        for c, here, there in zip(chain, positions, positions[1:])
        if c.head is not None
    ]
    return Reading(points, math.prod(scores))


@dataclass(frozen=True)
class Boundary:
    """A point between two inputs where a function takes a level.

    Attributes:
        point: x₋ + t(x₊ − x₋).
        t: between 0 and 1.
        level: 0 on the decision boundary; halfway between the two ends' values where there is none.
        ends: f(x₋), f(x₊).
    """

    point: Float[Tensor, " d_model"]
    t: float
    level: float
    ends: tuple[float, float]


def decision_boundary(
    f: Callable[[Float[Tensor, " d_model"]], float | Tensor],
    x_minus: Float[Tensor, " d_model"],
    x_plus: Float[Tensor, " d_model"],
    *,
    halfway: bool = False,
) -> Boundary:
    """The point on the segment from x₋ to x₊ where f is 0 (section 4.3.4), by bracketing (Brent's method).

    Args:
        f: continuous, for example ``lambda x: y @ mlp_output(model, 16, x)``; called some ten times.
        x_minus, x_plus: inputs on which f is of opposite signs, whichever is positive.
        halfway: if the signs agree, take the point where f is halfway between its two values, which is always there.

    Raises:
        ValueError: the signs agree and ``halfway`` is not set; or f has one value at both ends, which brackets nothing.
    """

    def along(t: float) -> float:
        return float(f(x_minus + t * (x_plus - x_minus)))

    ends = along(0.0), along(1.0)
    level = 0.0
    if ends[0] * ends[1] > 0 or ends[0] == ends[1]:
        if ends[0] == ends[1]:
            raise ValueError(
                f"f is {ends[0]:.4g} at both ends: there is nothing to bracket between them."
            )
        if not halfway:
            raise ValueError(
                f"f is {ends[0]:.4g} at one end and {ends[1]:.4g} at the other, of one sign: no decision boundary lies for certain "
                "between them. Choose other inputs, or set halfway=True for the point where f is halfway between the two."
            )
        level = (ends[0] + ends[1]) / 2
    t = brentq(lambda t: along(t) - level, 0.0, 1.0)
    return Boundary(x_minus + t * (x_plus - x_minus), t, level, ends)
