"""Edits keep their promise in float64, and something else does not keep it."""

from __future__ import annotations

import pytest
import torch
from concept_erasure import LeaceFitter

from helpers.models.norms import Norm
from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.edits import (
    Erasure,
    edited,
    leace,
    least_norm,
    mean_difference,
    projection,
    steer,
)
from tests.plain_hooks import blocks

pytestmark = pytest.mark.unit

D, N = 12, 400
TOKENS = torch.randint(1, 101, (5, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated inputs of two groups of unequal size, whose means differ."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(D, D, generator=generator, dtype=torch.float64)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64) @ mix + 3
    group = torch.arange(N) < 150
    return x + group[:, None] * torch.randn(D, generator=generator, dtype=torch.float64), group


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def covariance(x: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    z = group.to(x)
    return (x - x.mean(0)).mT @ (z - z.mean()) / len(x)


def test_the_least_norm_vector_makes_the_changes_and_every_other_one_is_longer(features) -> None:
    wanted = torch.tensor([-2.0, 1.5, 0.0], dtype=torch.float64)
    delta = least_norm(features, wanted)
    torch.testing.assert_close(features @ delta, wanted)
    torch.testing.assert_close(delta, torch.linalg.pinv(features) @ wanted)
    for unseen in torch.linalg.svd(features).Vh[3:]:
        torch.testing.assert_close(features @ (delta + unseen), wanted)
        assert (delta + unseen).norm() > delta.norm()


def test_dependent_features_are_refused(features) -> None:
    one, other, _ = features
    with pytest.raises(ValueError, match="dependent"):
        least_norm(torch.stack([one, -2 * one]), torch.ones(2))
    with pytest.raises(ValueError, match="span"):
        projection(one + other, torch.zeros_like(one), spared=features[:2])


def test_the_projection_fixes_one_reading_and_leaves_the_spared_ones(data, features) -> None:
    x, feature, others = data[0], features[0], features[1:]
    edit, careless = projection(feature, x.mean(0), spared=others), projection(feature, x.mean(0))
    torch.testing.assert_close(edit(x) @ feature, (x.mean(0) @ feature).expand(N))
    torch.testing.assert_close(edit(x) @ others.mT, x @ others.mT)
    torch.testing.assert_close(careless(x) @ feature, edit(x) @ feature)
    assert ((careless(x) - x) @ others.mT).abs().max() > 0.1
    assert (careless(x) - x).norm() < (edit(x) - x).norm()  # sparing something has a price


@pytest.mark.parametrize("shrinkage", [None, 0.0, 0.3])
def test_an_erasure_leaves_no_covariance_with_the_group_and_no_linear_prediction_of_it(
    data, shrinkage
) -> None:
    def fit(group):
        if shrinkage is None:
            return mean_difference(x, group)
        return leace(x, group, shrinkage=shrinkage)

    x, group = data
    erased = fit(group)(x)
    assert covariance(x, group).abs().max() > 0.1
    assert covariance(erased, group).abs().max() < 1e-12
    design = torch.cat([erased, torch.ones(N, 1, dtype=x.dtype)], 1)
    predicted = design @ torch.linalg.lstsq(design, group.to(x)[:, None]).solution
    torch.testing.assert_close(predicted, group.to(x).mean().expand(N, 1))
    # Negative control: wrong labels remove something else.
    wrong = group[torch.randperm(N, generator=torch.Generator().manual_seed(2))]
    assert covariance(fit(wrong)(x), group).abs().max() > 0.1


def test_leace_is_the_published_formula(data) -> None:
    """x − W⁺ P W (x − μ): W whitens, Σ^(−1/2), and P projects orthogonally on W Σ_xz."""
    x, group = data
    centred = x - x.mean(0)
    values, vectors = torch.linalg.eigh(centred.mT @ centred / N)
    whiten, colour = (vectors @ torch.diag(values**power) @ vectors.mT for power in (-0.5, 0.5))
    u = whiten @ covariance(x, group)
    u = u / u.norm()
    expected = x - centred @ whiten @ torch.outer(u, u) @ colour
    torch.testing.assert_close(leace(x, group)(x), expected)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_leace_is_its_authors_library_s(data, shift) -> None:
    x, group = data
    x = x + shift  # so that the mean matters
    theirs = LeaceFitter.fit(x, group.long(), shrinkage=False).eraser
    torch.testing.assert_close(leace(x, group)(x), theirs(x))
    assert (mean_difference(x, group)(x) - theirs(x)).abs().max() > 0.1


def test_shrinkage_mixes_the_covariance_with_a_sphere_of_its_size(data) -> None:
    x, group = data
    d = x[group].mean(0) - x[~group].mean(0)
    sigma = torch.cov(x.mT, correction=0)
    mixed = 0.7 * sigma + 0.3 * sigma.trace() / D * torch.eye(D, dtype=x.dtype)
    read = torch.linalg.solve(mixed, d)
    torch.testing.assert_close(leace(x, group, shrinkage=0.3).read, read / (read @ d))
    assert not torch.allclose(leace(x, group, shrinkage=0.2).read, read / (read @ d))


def test_no_other_erasure_of_the_group_changes_less_than_leace(data) -> None:
    x, group = data
    best = leace(x, group)
    least = (best(x) - x).square().sum()
    assert (mean_difference(x, group)(x) - x).square().sum() > 1.01 * least
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        read = best.read + 0.01 * torch.randn(D, generator=generator, dtype=torch.float64)
        other = Erasure(best.mean, read / (read @ best.write), best.write)
        assert covariance(other(x), group).abs().max() < 1e-12
        assert (other(x) - x).square().sum() > least


def test_what_is_spared_stays_once_or_twice_and_the_rest_of_the_difference_goes(data, features):
    x, group = data
    feature = features[0]
    erased = leace(x, group, spared=feature[None])(x)
    torch.testing.assert_close(erased @ feature, x @ feature)
    left = covariance(erased, group)
    along = (left @ feature) * feature / (feature @ feature)
    torch.testing.assert_close(left, along)  # only along the spared feature vector
    assert along.norm() > 0.01
    once, twice = features[:2], torch.stack([feature, -2 * feature, features[1]])
    for fit in (
        lambda spared: leace(x, group, spared=spared),
        lambda spared: projection(features[2], x.mean(0), spared=spared),
    ):
        torch.testing.assert_close(fit(twice).write, fit(once).write)


def test_the_strength_scales_the_edit_and_zero_is_none(data) -> None:
    x, group = data
    edit = mean_difference(x, group)
    assert torch.equal(edit(x, 0.0), x)
    torch.testing.assert_close(covariance(edit(x, 0.25), group), 0.75 * covariance(x, group))


def test_fewer_inputs_than_dimensions_need_shrinkage(data) -> None:
    x, group = (values[[0, 1, 2, 3, -4, -3, -2, -1]] for values in data)
    with pytest.raises(ValueError, match="shrinkage"):
        leace(x, group)
    assert covariance(leace(x, group, shrinkage=0.1)(x), group).abs().max() < 1e-12


@pytest.mark.parametrize("fit", [mean_difference, leace])
def test_groups_without_a_difference_are_refused(data, fit) -> None:
    x, group = data
    with pytest.raises(ValueError, match="empty"):
        fit(x, torch.zeros_like(group))
    with pytest.raises(ValueError, match="same mean"):
        fit(torch.ones_like(x), group)
    with pytest.raises(ValueError, match="from 0 to 1"):
        leace(x, group, shrinkage=1.5)


def test_an_edit_at_the_end_is_one_of_the_final_norms_input(tiny) -> None:
    kept, base = read_activations(tiny, TOKENS, ["ln_final.hook_in"])
    x = kept["ln_final.hook_in"][:, -1]
    edit = mean_difference(x, torch.arange(5) < 2)
    with edited(tiny, tiny.cfg.n_layers, -1, edit):
        logits = last_logits(tiny, TOKENS)
    torch.testing.assert_close(logits, Norm.of(tiny, "ln_final")(edit(x)) @ tiny.W_U + tiny.b_U)
    assert (logits - base).abs().max() > 1e-3
    assert torch.equal(last_logits(tiny, TOKENS), base)


@pytest.mark.parametrize("layer", [0, 1])
def test_steering_adds_each_vector_to_one_tokens_residual_stream(tiny, layer) -> None:
    """Against PyTorch's own hooks on the Hugging Face model."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, tiny.cfg.d_model, generator=generator, dtype=torch.float64)
    logits = steer(tiny, TOKENS, layer, -3, vectors, batch_size=4)
    for vector, ours in zip(vectors, logits, strict=True):

        def add(module, args, kwargs, vector=vector):
            hidden = args[0].clone()
            hidden[:, 3] += vector
            return (hidden, *args[1:]), kwargs

        block = blocks(tiny.original_model)[layer]
        handle = block.register_forward_pre_hook(add, with_kwargs=True)
        try:
            expected = tiny.original_model(TOKENS).logits[:, -1]
        finally:
            handle.remove()
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    nothing = steer(tiny, TOKENS, layer, 3, 0 * vectors[:1])[0]
    torch.testing.assert_close(nothing, last_logits(tiny, TOKENS))
    assert not torch.allclose(logits[0], logits[1], rtol=1e-4)


def test_an_edit_acts_on_the_tokens_named_and_is_gone_after_an_error(tiny) -> None:
    base = tiny(TOKENS)
    # LayerNorm would not see a constant.
    v = torch.linspace(-1, 1, tiny.cfg.d_model, dtype=torch.float64)
    with edited(tiny, 1, slice(3, 5), lambda x: x + v):
        changed = (tiny(TOKENS) - base).abs().amax((0, 2))
    assert (changed[:3] == 0).all() and (changed[3:] > 1e-6).all()
    with (
        pytest.raises(ValueError, match="layer = 3 must be 0 to 2"),
        edited(tiny, 3, -1, lambda x: x),
    ):
        pass
    with pytest.raises(RuntimeError, match="mine"), edited(tiny, 0, -1, lambda x: x + v):
        raise RuntimeError("mine")
    assert torch.equal(tiny(TOKENS), base)
