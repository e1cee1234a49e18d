"""Search over paths through heads: every chain up to a length, or the best few of each length (a beam)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.norms import Norm, Norms
from helpers.observable_propagation.features import IGNORE, through_heads
from helpers.observable_propagation.paths import Component, Path, show
from helpers.runs.workers import parallel_map

Partial = tuple[
    Path, Float[Tensor, "*n d_model"]
]  # a path to be grown, and what reads the residual stream before it
GROUP = (
    64  # partial paths that go back together: few enough for memory, and for many workers to share
)

# Features of a layer's heads, the layer, and the path behind them (empty for single heads) -> one number a head.
Score = Callable[[Float[Tensor, "*n head d_model"], int, Path], Float[Tensor, " head"]]


@dataclass(frozen=True)
class Found:
    """One path of a search.

    Attributes:
        chain: the path.
        score: what it was ranked by.
        features: its feature vectors, one an observable.
    """

    chain: Path
    score: float
    features: Float[Tensor, "*n d_model"]

    def __str__(self) -> str:
        return f"{show(self.chain)}: {self.score:.4g}"


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        found: the best paths of each length, best first.
        n_searched: how many paths were scored, to be stated with any path that is picked.
    """

    found: dict[int, list[Found]]
    n_searched: int


def search_paths(
    model: TransformerBridge,
    m: Float[Tensor, "*n d_model"],
    score: Score,
    *,
    max_length: int = 2,
    keep: int = 10,
    beam: int | None = None,
    norms: Norms = IGNORE,
    own_norm: bool = True,
) -> Search:
    """Grow paths backwards from the logits, one head at a time, and keep the best of each length.

    With ``BOOK_SCHEDULER`` set, workers score the heads in front of each path (``helpers.runs.workers``).

    Args:
        model: whose heads.
        m: observables as vectors; a path goes back from all of them at once.
        score: features of a layer's heads, ``[*n head d_model]``, the layer, and the path that they lead into -> one number a
            head, higher is better.
        max_length: heads in a path, at most.
        keep: paths of each length to report.
        beam: paths of each length to grow further; None grows all (then every path up to ``max_length`` is scored).
        norms: how the norms are dealt with.
        own_norm: whether scored and reported vectors read the input or the output of the first head's norm.

    Raises:
        ValueError: a length, number to keep or beam below 1.
    """
    for name, value in (
        ("max_length", max_length),
        ("keep", keep),
        ("beam", 1 if beam is None else beam),
    ):
        if value < 1:
            raise ValueError(f"{name} = {value} must be at least 1.")

    def step_back(
        group: list[Partial],
    ) -> list[list[list[float]]]:  # the scores before each path, [path layer head]
        scores: list[list[list[float]]] = [[] for _ in group]
        for layer in range(
            model.cfg.n_layers
        ):  # outermost, so that a layer's weights are read once for the whole group
            behind = [
                i for i, (chain, _) in enumerate(group) if not chain or layer < chain[0].layer
            ]
            if behind:
                y = torch.stack([group[i][1] for i in behind])
                for i, features in zip(
                    behind, through_heads(model, layer, y, norms=norms, own_norm=own_norm)
                ):
                    scores[i].append(score(features, layer, group[i][0]).tolist())
        return scores

    # A partial path, and the vectors that read what its first head's predecessors wrote.
    partial: list[Partial] = [((), norms.pull_back(Norm.of(model, "ln_final"), m))]
    found: dict[int, list[Found]] = {}
    n_searched = 0
    for length in range(1, max_length + 1):
        candidates: list[tuple[float, Path, Tensor]] = []  # score, path, its parent's vectors
        groups = [(partial[start : start + GROUP],) for start in range(0, len(partial), GROUP)]
        for (chain, y), scores in zip(
            partial, (scores for group in parallel_map(step_back, groups) for scores in group)
        ):
            candidates += [
                (value, (Component(layer, head), *chain), y)
                for layer, heads in enumerate(scores)
                for head, value in enumerate(heads)
            ]
        n_searched += len(candidates)
        candidates.sort(key=lambda candidate: -candidate[0])
        found[length] = [
            Found(chain, value, _step(model, chain[0], y, norms, own_norm))
            for value, chain, y in candidates[:keep]
        ]
        if length < max_length:
            # Further back the path goes on through the residual stream, so through the norm whatever own_norm says.
            partial = [
                (chain, _step(model, chain[0], y, norms, True)) for _, chain, y in candidates[:beam]
            ]
    return Search(found, n_searched)


def _step(
    model: TransformerBridge, component: Component, y: Tensor, norms: Norms, own_norm: bool
) -> Tensor:
    return through_heads(model, component.layer, y, norms=norms, own_norm=own_norm)[
        ..., component.head, :
    ]
