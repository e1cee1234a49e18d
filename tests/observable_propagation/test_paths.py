"""Feature vectors of paths against autograd through one path; decision boundaries; search."""

from __future__ import annotations

import pytest
import torch
from one_path import gradient

from helpers.observable_propagation.coupling import cosine
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.paths import (
    Component,
    path,
    path_feature,
    reading,
    show,
)
from helpers.observable_propagation.pull_back import (
    IgnoreNorms,
    NormGradients,
    NormWeights,
    decision_boundary,
    mlp_gradient,
    mlp_output,
)
from helpers.observable_propagation.search import search_paths

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 8)
TOLERANCE = {
    "rtol": 1e-5,
    "atol": 1e-7,
}  # GPT-Neo's scores and Llama's norms are computed in 32 bits

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


def parallel(model) -> bool:
    return model.cfg.model_name == "EleutherAI/pythia-1.4b"


@pytest.mark.parametrize("text", PATHS)
def test_a_paths_feature_vector_equals_autograd_through_that_path_alone(tiny, text: str) -> None:
    if parallel(tiny) and ("→ MLP0" in text or "1.3 → MLP1" in text):
        with pytest.raises(ValueError, match="cannot read what"):
            path(tiny, text)
        return
    chain, positions = path(tiny, text), PATHS[text]
    m = Observable.of(tiny, {"w3": 1, "w5": -1}).vector(tiny)
    run = reading(tiny, chain, TOKENS, positions)
    ours = run.score * path_feature(tiny, chain, m, norms=NormGradients(run.points))
    layers = [(component.layer, component.head) for component in chain]
    expected = gradient(tiny, layers, TOKENS[None], [p % 7 for p in positions], {3: 1.0, 5: -1.0})
    assert expected.norm() > 1e-6
    torch.testing.assert_close(ours, expected, **TOLERANCE)
    # Negative controls: norms left out, and a point that the path does not read.
    assert not torch.allclose(
        run.score * path_feature(tiny, chain, m, norms=NormWeights(), mlp_points=zeros(tiny)),
        expected,
        rtol=1e-2,
    )
    elsewhere = reading(tiny, chain, TOKENS.flip(0), positions).points
    assert not torch.allclose(
        run.score * path_feature(tiny, chain, m, norms=NormGradients(elsewhere)),
        expected,
        rtol=1e-2,
    )


def zeros(model) -> dict[int, torch.Tensor]:
    return {
        layer: torch.zeros(model.cfg.d_model, dtype=torch.float64)
        for layer in range(model.cfg.n_layers)
    }


@pytest.mark.parametrize(
    "measured", [{"w3": 1, "w9": -1}, {"w20": 1, "w41": -1}, {"w7": 2, "w8": -0.5, "w100": 1}]
)
def test_it_holds_for_any_observable(tiny, measured) -> None:
    n = Observable.of(tiny, measured)
    chain = path(tiny, "0.1 → 1.2")
    run = reading(tiny, chain, TOKENS, [1, 4, -1])
    ours = run.score * path_feature(tiny, chain, n.vector(tiny), norms=NormGradients(run.points))
    expected = gradient(
        tiny,
        [(0, 1), (1, 2)],
        TOKENS[None],
        [1, 4, 6],
        {token: weight for token, _, weight in n.terms},
    )
    torch.testing.assert_close(ours, expected, **TOLERANCE)


def test_a_path_of_one_head_is_that_heads_feature_vector(tiny) -> None:
    from helpers.observable_propagation.features import head_features

    m = torch.stack([Observable.of(tiny, {f"w{i}": 1}).vector(tiny) for i in (3, 4)])
    for own_norm in (True, False):
        ours = path_feature(
            tiny, path(tiny, "1.2"), m, norms=NormWeights({"ln_final": 3.0}), own_norm=own_norm
        )
        torch.testing.assert_close(
            ours,
            head_features(tiny, m, norms=NormWeights({"ln_final": 3.0}), own_norm=own_norm)[
                :, 1, 2
            ],
        )


def test_an_mlps_gradient_is_its_finite_difference(tiny) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, direction = torch.randn(3, tiny.cfg.d_model, generator=generator, dtype=torch.float64)
    step = 1e-5
    difference = (
        (mlp_output(tiny, 1, x + step * direction) - mlp_output(tiny, 1, x - step * direction))
        @ y
        / (2 * step)
    )
    ours = mlp_gradient(tiny, 1, y, x)
    torch.testing.assert_close(ours @ direction, difference, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(mlp_gradient(tiny, 1, y, -x) @ direction, difference, rtol=1e-2)
    torch.testing.assert_close(
        mlp_gradient(tiny, 1, torch.stack([y, 2 * y]), x), torch.stack([ours, 2 * ours])
    )


def test_paths_are_written_and_read_back(tiny) -> None:
    chain = path(tiny, " 0.1->MLP1 ")
    assert (
        chain == (Component(0, 1), Component(1))
        and show(chain) == "0.1 → MLP1"
        and path(tiny, show(chain)) == chain
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither a head"),
        ("0.1 → attn", "'attn' in path"),
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


def test_an_mlp_without_a_point_is_refused(tiny) -> None:
    m = Observable.of(tiny, {"w3": 1}).vector(tiny)
    with pytest.raises(ValueError, match="no point is given at which to linearise MLP1"):
        path_feature(tiny, path(tiny, "MLP1"), m, norms=IgnoreNorms())


@pytest.mark.parametrize("positions", [[1, 2, 3], [3, 1], [1, 9], [1, -9]])
def test_positions_that_nothing_passes_through_are_refused(tiny, positions) -> None:
    with pytest.raises(ValueError, match="positions|cannot move"):
        reading(tiny, path(tiny, "0.1"), TOKENS, positions)
    with pytest.raises(ValueError, match="MLP1 cannot move anything from token 1 to token 2"):
        reading(tiny, path(tiny, "MLP1"), TOKENS, [1, 2])


# Decision boundaries.


def test_the_boundary_of_an_mlp_is_where_the_observable_is_zero(tiny) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, tiny.cfg.d_model, generator=generator, dtype=torch.float64)
    centre = mlp_output(tiny, 1, x)
    direction = mlp_gradient(tiny, 1, y, x)

    def f(point):  # shifted, so that it changes sign across x
        return (mlp_output(tiny, 1, point) - centre) @ y

    ends = x - direction / direction.norm(), x + 2 * direction / direction.norm()
    found = decision_boundary(f, *ends)
    assert f(ends[0]) < 0 < f(ends[1]) and found.level == 0
    assert abs(f(found.point)) < 1e-9
    torch.testing.assert_close(decision_boundary(f, *ends[::-1]).point, found.point)


def test_ends_of_one_sign_are_refused_unless_halfway_is_asked_for() -> None:
    minus, plus = (
        torch.tensor([1.0, 0.0], dtype=torch.float64),
        torch.tensor([3.0, 0.0], dtype=torch.float64),
    )
    with pytest.raises(
        ValueError,
        match="f is 1 at one end and 9 at the other, of one sign: there may be no decision boundary",
    ):
        decision_boundary(lambda x: x[0] ** 2, minus, plus)
    found = decision_boundary(lambda x: x[0] ** 2, minus, plus, halfway=True)
    assert found.level == 5 and found.point[0] == pytest.approx(5**0.5)


def test_halfway_does_not_replace_a_boundary_that_is_there() -> None:
    minus, plus = torch.tensor([-1.0]), torch.tensor([3.0])
    found = decision_boundary(lambda x: x[0], minus, plus, halfway=True)
    assert found.level == 0 and found.point.item() == pytest.approx(0)


def test_an_end_on_the_boundary_is_the_boundary() -> None:
    found = decision_boundary(lambda x: x[0], torch.tensor([0.0]), torch.tensor([3.0]))
    assert found.point == 0 and found.level == 0


def test_a_function_with_one_value_at_both_ends_is_refused() -> None:
    for halfway in (False, True):
        with pytest.raises(ValueError, match="bracket nothing"):
            decision_boundary(
                lambda x: x[0] ** 2, torch.tensor([-1.0]), torch.tensor([1.0]), halfway=halfway
            )


# Search.


def both(tiny) -> torch.Tensor:
    return torch.stack(
        [
            Observable.of(tiny, {"w3": 1, "w5": -1}).vector(tiny),
            Observable.of(tiny, {"w8": 1, "w9": -1}).vector(tiny),
        ]
    )


@pytest.mark.parametrize("group", [3, 64])
def test_a_full_search_scores_every_path_and_finds_the_best(tiny, monkeypatch, group: int) -> None:
    monkeypatch.setattr("helpers.observable_propagation.search.GROUP", group)
    m = both(tiny)
    result = search_paths(
        tiny,
        m,
        lambda features, layer, chain: cosine(features[0], features[1]),
        max_length=2,
        keep=3,
        norms=NormWeights(),
    )
    heads = tiny.cfg.n_heads
    assert result.n_searched == 2 * heads + heads * heads
    every = {
        (a, b): path_feature(tiny, path(tiny, f"0.{a} → 1.{b}"), m, norms=NormWeights())
        for a in range(heads)
        for b in range(heads)
    }
    cosines = sorted((cosine(*features).item() for features in every.values()), reverse=True)
    assert [found.score for found in result.found[2]] == pytest.approx(cosines[:3])
    best = result.found[2][0]
    torch.testing.assert_close(best.features, every[best.chain[0].head, best.chain[1].head])
    assert len(result.found[1]) == 3 and all(len(found.chain) == 1 for found in result.found[1])


def test_a_beam_grows_only_the_best_paths(tiny) -> None:
    norm = lambda features, layer, chain: features[0].norm(dim=-1)  # noqa: E731
    result = search_paths(tiny, both(tiny), norm, max_length=2, keep=4, beam=1)
    best = result.found[1][0].chain[0]
    assert all(found.chain[1] == best for found in result.found[2])
    assert result.n_searched == 2 * tiny.cfg.n_heads + best.layer * tiny.cfg.n_heads


def test_a_score_may_look_at_the_path_that_the_heads_lead_into(tiny) -> None:
    seen = []

    def score(features, layer, chain):
        seen.append((layer, show(chain)))
        return features[0].norm(dim=-1)

    search_paths(tiny, both(tiny), score, max_length=2, keep=1)
    assert (1, "") in seen and (0, "1.3") in seen and (0, "0.3") not in seen


@pytest.mark.parametrize("wrong", [{"max_length": 0}, {"keep": 0}, {"beam": 0}])
def test_a_search_for_nothing_is_refused(tiny, wrong) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        search_paths(
            tiny, both(tiny), lambda features, layer, chain: features[0].norm(dim=-1), **wrong
        )
