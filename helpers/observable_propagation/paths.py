"""Feature vectors of paths: chains of heads and MLPs, attention scores held fixed (4.2 to 4.4).

A path is written from input to output: in ``13.3 → MLP16 → 17.14``, head 13.3 reads the residual
stream, MLP 16 what it wrote, head 17.14 what the MLP wrote, and that goes to the logits. Backwards
along it, each component turns the vector that reads its output into one that reads its input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.blocks import mlp_reads, name_before, norm_after, norm_before
from helpers.models.checks import checked, rows, vectors, whole
from helpers.models.formulas import facts, require
from helpers.models.norms import Norm
from helpers.models.run import read_activations
from helpers.models.tokens import check_tokens, ends
from helpers.observable_propagation.pull_back import (
    IGNORE,
    NormGradients,
    Norms,
    mlp_gradient,
    through_heads,
    to_input,
    to_output,
)

Points = Mapping[int, Float[Tensor, " d_model"]]


@dataclass(frozen=True)
class Component:
    """One stage of a path: head ``layer.head``, or the MLP of a layer (head is None)."""

    layer: int
    head: int | None = None

    @property
    def part(self) -> str:
        """The part of its block, as :mod:`helpers.models.blocks` calls it."""
        return "mlp" if self.head is None else "attn"

    def __str__(self) -> str:
        return f"MLP{self.layer}" if self.head is None else f"{self.layer}.{self.head}"


Path = tuple[Component, ...]


def path(model: TransformerBridge, text: str) -> Path:
    """The path that a text means; ``->`` will do for the arrow.

    Raises:
        ValueError: a part that the model does not have, or that cannot read the part before it.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no path: write one like '13.3 → MLP16 → 17.14'.")
    cfg, components = model.cfg, []
    for part in re.split(r"\s*(?:→|->)\s*", text.strip()):
        found = re.fullmatch(r"(\d+)\.(\d+)|MLP\s?(\d+)", part)
        if not found:
            raise ValueError(f"{part!r} is neither a head like 13.3 nor an MLP like MLP16.")
        layer, head, mlp = found.groups()
        component = Component(int(mlp)) if mlp else Component(int(layer), int(head))
        if component.layer >= cfg.n_layers or (component.head or 0) >= cfg.n_heads:
            raise ValueError(
                f"{component} is not in {cfg.model_name}: "
                f"it has {cfg.n_layers} layers of {cfg.n_heads} heads."
            )
        if components and not _feeds(model, components[-1], component):
            raise ValueError(f"{component} cannot read what {components[-1]} wrote, in this model.")
        components.append(component)
    return tuple(components)


def _feeds(model: TransformerBridge, earlier: Component, later: Component) -> bool:
    if earlier.layer != later.layer:
        return earlier.layer < later.layer
    # In one layer, an MLP reads what heads wrote, but not in GPT-NeoX, where both read one stream.
    return earlier.head is not None and later.head is None and not facts(model).parallel


@checked
def show(chain: Path) -> str:
    """A path as text.

    Example:
        >>> show((Component(13, 3), Component(16), Component(17, 14)))
        '13.3 → MLP16 → 17.14'
    """
    return " → ".join(map(str, chain))


@checked
def path_feature(
    model: TransformerBridge,
    chain: Path,
    m: Float[Tensor, "*n d_model"],
    *,
    norms: Norms = IGNORE,
    mlp_points: Points | None = None,
) -> Float[Tensor, "*n d_model"]:
    """The feature vector of a path, for observables m = W_U n.

    Attention scores are left out: multiply by :attr:`Reading.score` for one prompt's gradient.

    Args:
        norms: how ln_final and the norm in front of each component are treated.
        mlp_points: by layer, where to linearise its MLP, in the MLP's own input (after ln2). With
            ``NormGradients`` the default is the norm's output at its point.

    Raises:
        ValueError: no point for an MLP or a norm that needs one.
    """
    require(model, "norms", "stream")
    y = norms.pull_back(Norm.of(model, "ln_final"), vectors("m", m, model.cfg.d_model))
    for component in reversed(chain):
        layer = whole("layer", component.layer, 0, model.cfg.n_layers)
        whole("head", component.head or 0, 0, model.cfg.n_heads)
        if component.head is not None:
            y = through_heads(model, layer, y, norms=norms)[..., component.head, :]
            continue
        point = (mlp_points or {}).get(layer)
        if point is None and isinstance(norms, NormGradients):
            point = _behind_norm(model, layer, norms.points)
        if point is None:
            raise ValueError(f"no point is given at which to linearise {component}.")
        y = to_output(model, layer, "mlp", y, norms)
        y = to_input(model, layer, "mlp", mlp_gradient(model, layer, y, point), norms)
    return y


def _behind_norm(
    model: TransformerBridge, layer: int, points: Mapping[str, Tensor]
) -> Float[Tensor, " d_model"] | None:
    """What an MLP reads, from the point at which the norm in front of it is linearised."""
    norm, name = norm_before(model, layer, "mlp"), mlp_reads(model, layer).removesuffix(".hook_in")
    if norm is None or name not in points:
        return points.get(name)
    return norm(points[name])


@dataclass(frozen=True)
class Reading:
    """What the components of a path read on one prompt.

    Attributes:
        points: by name of a norm, its input: of one in front of a component at the token that it
            reads, of one after it at the token that it writes. Of an MLP without a norm in front,
            by ``blocks.3.mlp``, its own input.
        score: product of the heads' attention scores along the path, no unit.
    """

    points: dict[str, Float[Tensor, " d_model"]]
    score: float


@checked
def reading(
    model: TransformerBridge, chain: Path, tokens: Int[Tensor, " pos"], positions: Sequence[int]
) -> Reading:
    """Norm inputs and attention scores along a path on one prompt.

    Args:
        positions: the token that each component reads, then the one whose logits are measured;
            negative ones count from the prompt's end.

    Raises:
        ValueError: positions that do not fit the path, or that nothing passes through: a head looks
            back, and an MLP reads and writes one token.
    """
    check_tokens(model, tokens[None])
    n_pos = int(ends(tokens[None])) + 1
    tokens = tokens[:n_pos]
    where = rows(positions, n_pos, "position").tolist()
    if len(where) != len(chain) + 1:
        raise ValueError(f"{show(chain)} needs {len(chain) + 1} positions, not {len(where)}.")
    for component, here, there in zip(chain, where, where[1:]):
        if here > there or (component.head is None and here != there):
            raise ValueError(f"{component} moves nothing from token {here} to {there} of {n_pos}.")

    # Where each norm is to be linearised, and which attention scores lie on the path.
    spots, patterns = {"ln_final.hook_in": where[-1]}, []
    for component, here, there in zip(chain, where, where[1:]):
        layer = component.layer
        before = name_before(model, layer, component.part)
        if before is not None or component.head is None:
            spots[f"{before}.hook_in" if before else mlp_reads(model, layer)] = here
        if (after := norm_after(model, layer, component.part)) is not None:
            spots[f"{after.name}.hook_in"] = there
        if component.head is not None:
            patterns.append((f"blocks.{layer}.attn.hook_pattern", component.head, there, here))
    # One run gives them all.
    names = [*spots, *(name for name, *_ in patterns)]
    kept, _ = read_activations(model, tokens[None], names)

    points = {}
    for name, position in spots.items():
        points[name.removesuffix(".hook_in")] = kept[name].view(1, n_pos, -1)[0, position]
    scores = [kept[name][0, *spot].item() for name, *spot in patterns]
    return Reading(points, math.prod(scores))
