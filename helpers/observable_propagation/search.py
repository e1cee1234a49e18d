"""Search over all paths of heads up to a length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked, vectors, whole
from helpers.models.norms import Norm
from helpers.observable_propagation.paths import Component, Path
from helpers.observable_propagation.pull_back import IGNORE, Norms, through_heads
from helpers.runs.workers import parallel_map

# Paths scored in one call: few enough for memory, and for many workers to share.
GROUP = 64
# A path and the vectors that read the residual stream in front of it.
Partial = tuple[Path, Float[Tensor, "*n d_model"]]
# Features of a layer's heads, the layer, and the path that they lead into -> a number for each
# head.
Score = Callable[[Float[Tensor, "*n head d_model"], int, Path], Float[Tensor, " head"]]


@dataclass(frozen=True)
class Found:
    """One path of a search.

    Attributes:
        chain: the path.
        score: what it was ranked by.
        features: its feature vectors, one for each observable.
    """

    chain: Path
    score: float
    features: Float[Tensor, "*n d_model"]


@dataclass(frozen=True)
class Search:
    """The result of a search.

    Attributes:
        found: the best paths of each length, best first.
        n_searched: number of paths scored, to be stated with any path that is picked.
    """

    found: dict[int, list[Found]]
    n_searched: int


@checked
def search_paths(
    model: TransformerBridge,
    m: Float[Tensor, "*n d_model"],
    score: Score,
    *,
    max_length: int = 2,
    keep: int = 10,
    norms: Norms = IGNORE,
) -> Search:
    """Grow paths backwards from the logits, one head at a time, and keep the best of each length.

    With ``BOOK_SCHEDULER`` set, workers share the paths to be grown (``helpers.runs.workers``);
    then ``score`` may hold no model.

    Args:
        m: observables as vectors; a path goes back from all of them at once.
        score: from features of a layer's heads, the layer, and the path that they lead into (empty
            for single heads) to a number for each head; higher is better.
        max_length: of a path, in heads.
        keep: paths of each length to report.
        norms: how the norms are treated.

    Raises:
        TypeError, ValueError: a length or number to keep below 1; vectors of another width;
            scores that are not one finite number for each head.
    """
    max_length, keep = whole("max_length", max_length), whole("keep", keep)
    m = vectors("m", m, model.cfg.d_model)

    def grown(path: Path, y: Tensor) -> Tensor:
        """Vectors that read what the path's first head reads."""
        first = path[0]
        return through_heads(model, first.layer, y, norms=norms)[..., first.head, :]

    scores_before = partial(_scores_before, score=score, norms=norms)
    grow: list[Partial] = [((), norms.pull_back(Norm.of(model, "ln_final"), m))]
    found: dict[int, list[Found]] = {}
    n_searched = 0
    for length in range(1, max_length + 1):
        groups = [(grow[start : start + GROUP],) for start in range(0, len(grow), GROUP)]
        scored = chain.from_iterable(parallel_map(scores_before, groups, model=model))
        # Each candidate: its score, its path, and the vectors of the path that it leads into.
        candidates: list[tuple[float, Path, Tensor]] = []
        for (path, y), by_layer in zip(grow, scored):
            for layer, heads in enumerate(by_layer):
                for head, value in enumerate(heads):
                    candidates.append((value, (Component(layer, head), *path), y))
        n_searched += len(candidates)
        candidates.sort(key=lambda candidate: -candidate[0])
        best = candidates[:keep]
        found[length] = [Found(path, value, grown(path, y)) for value, path, y in best]
        if length < max_length:
            grow = [(path, grown(path, y)) for _, path, y in candidates]
    return Search(found, n_searched)


def _scores_before(
    model: TransformerBridge, group: list[Partial], *, score: Score, norms: Norms
) -> list[list[list[float]]]:
    """Scores of every head in front of each path, [path layer head]."""
    scores: list[list[list[float]]] = [[] for _ in group]
    # Layers outermost, so that a layer's weights are read once for the whole group.
    for layer in range(model.cfg.n_layers):
        behind = [i for i, (path, _) in enumerate(group) if not path or layer < path[0].layer]
        if behind:
            y = torch.stack([group[i][1] for i in behind])
            for i, features in zip(behind, through_heads(model, layer, y, norms=norms)):
                found = vectors("the score", score(features, layer, group[i][0]), axes=1)
                if len(found) != (n := model.cfg.n_heads):
                    raise ValueError(
                        f"score must return {n} numbers, one per head, not {len(found)}."
                    )
                scores[i].append(found.tolist())
    return scores
