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

from helpers.models.norms import Norm
from helpers.models.run import read_activations
from helpers.models.tokens import ends
from helpers.observable_propagation.pull_back import (
    IGNORE,
    NormGradients,
    Norms,
    mlp_gradient,
    through_heads,
)

Points = Mapping[int, Float[Tensor, " d_model"]]


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
    """The path that a text means, ``->`` allowed for the arrow.

    Raises:
        ValueError: a part that is neither head nor MLP, is not in the model, or cannot read from
            the part before it.
    """
    components = []
    for part in re.split(r"\s*(?:→|->)\s*", text.strip()):
        found = re.fullmatch(r"(\d+)\.(\d+)|MLP\s?(\d+)", part)
        if not found:
            raise ValueError(
                f"{part!r} in path {text!r} is neither a head like 13.3 nor an MLP like MLP16."
            )
        layer, head, mlp = found.groups()
        components.append(Component(int(mlp)) if mlp else Component(int(layer), int(head)))

    cfg = model.cfg
    for component in components:
        if component.layer >= cfg.n_layers or (component.head or 0) >= cfg.n_heads:
            raise ValueError(
                f"{component} is not in {cfg.model_name}, which has {cfg.n_layers} layers of "
                f"{cfg.n_heads} heads."
            )
    for earlier, later in zip(components, components[1:]):
        if not _feeds(model, earlier, later):
            raise ValueError(
                f"{later} cannot read what {earlier} wrote: it does not come after it "
                f"in {cfg.model_name}."
            )
    return tuple(components)


def _feeds(model: TransformerBridge, earlier: Component, later: Component) -> bool:
    """Whether one component's output is part of another's input."""
    if earlier.layer != later.layer:
        return earlier.layer < later.layer
    # Within a layer an MLP reads what heads wrote, but not in GPT-NeoX, where both read one stream.
    parallel = getattr(model.cfg, "parallel_attn_mlp", False)
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
    mlp_points: Points | None = None,
    own_norm: bool = True,
) -> Float[Tensor, "*n d_model"]:
    """The feature vector of a path, for observables m = W_U n.

    Attention scores are left out: multiply by :attr:`Reading.score` for one prompt's gradient.

    Args:
        norms: how ln_final and the norm in front of each component are treated.
        mlp_points: by layer, a point in the input of its MLP (after ln2) at which to linearise it.
            With ``NormGradients`` the default is the norm's output at its own point.
        own_norm: if False, the vector reads the output of the first norm instead of its input.

    Raises:
        ValueError: no point for an MLP or a norm that needs one.
    """
    y = norms.pull_back(Norm.of(model, "ln_final"), m)
    for number, component in reversed(list(enumerate(chain))):
        layer, with_norm = component.layer, own_norm or number > 0
        if component.head is not None:
            heads = through_heads(model, layer, y, norms=norms, own_norm=with_norm)
            y = heads[..., component.head, :]
        else:
            norm = Norm.of(model, component.norm)
            y = mlp_gradient(model, layer, y, _mlp_point(layer, norm, norms, mlp_points or {}))
            y = norms.pull_back(norm, y) if with_norm else y
    return y


def _mlp_point(layer: int, norm: Norm, norms: Norms, given: Points) -> Tensor:
    if layer in given:
        return given[layer]
    if isinstance(norms, NormGradients) and norm.name in norms.points:
        return norm(norms.points[norm.name])
    raise ValueError(
        f"no point is given at which to linearise MLP{layer}; pass mlp_points={{{layer}: ...}}."
    )


@dataclass(frozen=True)
class Reading:
    """What the components of a path read on one prompt.

    Attributes:
        points: by name of a norm, its input at the token that its component reads.
        score: product of the heads' attention scores along the path, no unit.
    """

    points: dict[str, Float[Tensor, " d_model"]]
    score: float


def reading(
    model: TransformerBridge, chain: Path, tokens: Int[Tensor, " pos"], positions: Sequence[int]
) -> Reading:
    """Norm inputs and attention scores along a path on one prompt.

    Args:
        positions: the token that each component reads, then the one whose logits are measured;
            negative ones count from the prompt's end.

    Raises:
        ValueError: as many positions as do not fit the path, or positions that nothing passes
            through: heads look back only, and an MLP reads and writes one token.
    """
    if len(positions) != len(chain) + 1:
        raise ValueError(
            f"{show(chain)} needs {len(chain) + 1} positions, one for each component and the last; "
            f"got {len(positions)}."
        )
    n_pos = int(ends(tokens[None])) + 1
    where = [position + n_pos if position < 0 else position for position in positions]
    for component, here, there in zip(chain, where, where[1:]):
        if not 0 <= here <= there < n_pos or (component.head is None and here != there):
            raise ValueError(
                f"{component} cannot move anything from token {here} to token {there} "
                f"of a prompt of {n_pos}."
            )

    heads = [component for component in chain if component.head is not None]
    names = ["ln_final.hook_in", *(f"{component.norm}.hook_in" for component in chain)]
    names += [f"blocks.{head.layer}.attn.hook_pattern" for head in heads]
    kept, _ = read_activations(model, tokens[None], names)

    points, scores = {"ln_final": kept["ln_final.hook_in"][0, where[-1]]}, []
    for component, here, there in zip(chain, where, where[1:]):
        points[component.norm] = kept[f"{component.norm}.hook_in"][0, here]
        if component.head is not None:
            pattern = kept[f"blocks.{component.layer}.attn.hook_pattern"][0, component.head]
            scores.append(pattern[there, here].item())
    return Reading(points, math.prod(scores))
