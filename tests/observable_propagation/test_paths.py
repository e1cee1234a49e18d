"""Feature vectors of paths against autograd through one path, and the search over paths."""

from __future__ import annotations

import pytest
import torch
from one_path import gradient

from helpers.observable_propagation.coupling import cosine
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.paths import Component, path, path_feature, reading, show
from helpers.observable_propagation.pull_back import IgnoreNorms, NormGradients, NormWeights
from helpers.observable_propagation.search import search_paths

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 8)
# Path, and the token that each component reads; the last position is the one measured.
# In layer 1 tokens reach back three at most: GPT-Neo's second layer attends to four tokens only.
PATHS = {
    "0.1": [2, -1],
    "1.2": [5, -1],
    "0.1 → 1.2": [1, 4, -1],
    "0.3 → 1.0": [3, 3, -1],
    "MLP0": [-1, -1],
    "MLP1": [6, 6],
    "MLP0 → 1.3": [3, 3, -1],
    "0.2 → MLP1": [2, -1, -1],
    "MLP0 → MLP1": [-1, -1, -1],
    "0.2 → MLP0 → 1.1": [1, 3, 3, 5],
    "0.0 → MLP0 → 1.3 → MLP1": [2, 4, 4, -1, -1],
}


def vectors(model) -> torch.Tensor:
    pairs = ({"w3": 1, "w5": -1}, {"w8": 1, "w9": -1})
    return torch.stack([Observable.of(model, pair).vector(model) for pair in pairs])


@pytest.mark.parametrize("text", PATHS)
@pytest.mark.slow
def test_a_paths_feature_vector_equals_autograd_through_that_path_alone(tiny, text: str) -> None:
    parallel = tiny.cfg.model_name == "EleutherAI/pythia-1.4b"
    if parallel and ("→ MLP0" in text or "1.3 → MLP1" in text):
        with pytest.raises(ValueError, match="cannot read what"):
            path(tiny, text)
        return
    chain, positions = path(tiny, text), PATHS[text]
    m = vectors(tiny)[0]
    run = reading(tiny, chain, TOKENS, positions)
    ours = run.score * path_feature(tiny, chain, m, norms=NormGradients(run.points))
    layers = [(component.layer, component.head) for component in chain]
    expected = gradient(tiny, layers, TOKENS[None], [p % 7 for p in positions], {3: 1.0, 5: -1.0})
    assert expected.norm() > 1e-6
    # GPT-Neo's scores and Llama's norms are computed in 32 bits.
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)
    # Negative controls: norms only weighted, and points that the path does not read.
    zeros = dict.fromkeys(range(2), torch.zeros_like(m))
    weighted = path_feature(tiny, chain, m, norms=NormWeights(), mlp_points=zeros)
    elsewhere = reading(tiny, chain, TOKENS.flip(0), positions).points
    for other in (weighted, path_feature(tiny, chain, m, norms=NormGradients(elsewhere))):
        assert not torch.allclose(run.score * other, expected, rtol=1e-2)


def test_a_path_of_one_head_is_that_heads_feature_vector(tiny) -> None:
    m, norms = vectors(tiny), NormWeights({"ln_final": 3.0})
    ours = path_feature(tiny, path(tiny, "1.2"), m, norms=norms)
    torch.testing.assert_close(ours, head_features(tiny, m, norms=norms)[:, 1, 2])


def test_paths_are_written_and_read_back(tiny) -> None:
    chain = path(tiny, " 0.1->MLP1 ")
    assert chain == (Component(0, 1), Component(1)) and show(chain) == "0.1 → MLP1"
    assert path(tiny, show(chain)) == chain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither a head"),
        ("0.1 → attn", "'attn' is neither"),
        ("0.9", "0.9 is not in"),
        ("2.0", "2.0 is not in"),
        ("MLP2", "MLP2 is not in"),
        ("1.2 → 0.1", "0.1 cannot read what 1.2 wrote"),
        ("0.2 → 0.1", "0.1 cannot read what 0.2 wrote"),
        ("MLP0 → 0.1", "0.1 cannot read what MLP0 wrote"),
        ("MLP0 → MLP0", "cannot read"),
    ],
)
def test_a_path_that_is_not_in_the_model_is_refused(tiny, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        path(tiny, text)


def test_an_mlp_without_a_point_and_positions_that_nothing_passes_through_are_refused(tiny) -> None:
    with pytest.raises(ValueError, match="no point is given at which to linearise MLP1"):
        path_feature(tiny, path(tiny, "MLP1"), vectors(tiny), norms=IgnoreNorms())
    with pytest.raises(ValueError, match="needs 2 positions, not 3"):
        reading(tiny, path(tiny, "0.1"), TOKENS, [1, 2, 3])
    for text, positions in [("0.1", [3, 1]), ("0.1", [1, 9]), ("0.1", [-9, 1]), ("MLP1", [1, 2])]:
        with pytest.raises(ValueError, match="moves nothing from token|position = -?9 must be"):
            reading(tiny, path(tiny, text), TOKENS, positions)


@pytest.mark.parametrize("group", [3, 64])
def test_a_full_search_scores_every_path_and_finds_the_best(tiny, monkeypatch, group: int) -> None:
    monkeypatch.setattr("helpers.observable_propagation.search.GROUP", group)
    m, norms, heads = vectors(tiny), NormWeights(), range(tiny.cfg.n_heads)
    seen = set()

    def score(features, layer, chain):
        seen.add((layer, show(chain)))  # the path that the heads lead into
        return cosine(features[0], features[1])

    result = search_paths(tiny, m, score, max_length=2, keep=3, norms=norms)
    assert seen == {(0, ""), (1, ""), *((0, f"1.{head}") for head in heads)}
    assert result.n_searched == 2 * len(heads) + len(heads) ** 2
    every = {}
    for text in (f"0.{a} → 1.{b}" for a in heads for b in heads):
        every[text] = path_feature(tiny, path(tiny, text), m, norms=norms)
    cosines = sorted((cosine(*features).item() for features in every.values()), reverse=True)
    assert [found.score for found in result.found[2]] == pytest.approx(cosines[:3])
    best = result.found[2][0]
    torch.testing.assert_close(best.features, every[show(best.chain)])
    assert len(result.found[1]) == 3 and all(len(found.chain) == 1 for found in result.found[1])


def length(features, layer, chain):
    return features[0].norm(dim=-1)


@pytest.mark.parametrize("wrong", ["max_length", "keep"])
def test_a_search_for_nothing_is_refused(tiny, wrong) -> None:
    with pytest.raises(ValueError, match=f"{wrong} = 0 must be at least 1"):
        search_paths(tiny, vectors(tiny), length, **{wrong: 0})
