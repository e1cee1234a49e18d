"""Closed-form edits: what they promise, in float64, and that something else does not keep the promise."""

from __future__ import annotations

import pytest
import torch

from helpers.models.norms import Norm
from helpers.models.run import last_logits
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


def cross_covariance(x: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    z = group.to(x)
    return (x - x.mean(0)).mT @ (z - z.mean()) / len(x)


def shuffled(group: torch.Tensor) -> torch.Tensor:
    return group[torch.randperm(len(group), generator=torch.Generator().manual_seed(2))]


def test_the_least_norm_vector_makes_the_changes_and_every_other_one_that_does_is_longer(
    features,
) -> None:
    wanted = torch.tensor([-2.0, 1.5, 0.0], dtype=torch.float64)
    delta = least_norm(features, wanted)
    torch.testing.assert_close(features @ delta, wanted)
    torch.testing.assert_close(delta, torch.linalg.pinv(features) @ wanted)
    for unseen in torch.linalg.svd(features).Vh[3:]:
        torch.testing.assert_close(features @ (delta + unseen), wanted)
        assert (delta + unseen).norm() > delta.norm()


def test_dependent_features_are_refused(features) -> None:
    with pytest.raises(ValueError, match="dependent"):
        least_norm(torch.stack([features[0], -2 * features[0]]), torch.ones(2))
    with pytest.raises(ValueError, match="span"):
        projection(
            features[0] + features[1], torch.zeros(D, dtype=torch.float64), spared=features[:2]
        )


def test_the_projection_fixes_one_reading_and_leaves_the_spared_ones(data, features) -> None:
    x, _ = data
    edit = projection(features[0], x.mean(0), spared=features[1:])
    torch.testing.assert_close(edit(x) @ features[0], (x.mean(0) @ features[0]).expand(N))
    torch.testing.assert_close(edit(x) @ features[1:].mT, x @ features[1:].mT)
    careless = projection(features[0], x.mean(0))
    torch.testing.assert_close(careless(x) @ features[0], edit(x) @ features[0])
    assert (careless(x) @ features[1] - x @ features[1]).abs().max() > 0.1
    assert (careless(x) - x).norm() < (edit(x) - x).norm()  # sparing something has a price


@pytest.mark.parametrize(
    "fit", [mean_difference, leace, lambda x, group: leace(x, group, shrinkage=0.3)]
)
def test_an_erasure_leaves_no_covariance_with_the_group_and_no_linear_prediction_of_it(
    data, fit
) -> None:
    x, group = data
    erased = fit(x, group)(x)
    assert cross_covariance(x, group).abs().max() > 0.1
    assert cross_covariance(erased, group).abs().max() < 1e-12
    design = torch.cat([erased, torch.ones(N, 1, dtype=x.dtype)], 1)
    predicted = design @ torch.linalg.lstsq(design, group.to(x)[:, None]).solution
    torch.testing.assert_close(predicted, group.to(x).mean().expand(N, 1))
    assert (
        cross_covariance(fit(x, shuffled(group))(x), group).abs().max() > 0.1
    )  # wrong labels remove something else


def test_leace_is_the_published_formula(data) -> None:
    """x − W⁺ P W (x − μ), with W the whitening Σ^(−1/2) and P the orthogonal projection on W Σ_xz."""
    x, group = data
    centred = x - x.mean(0)
    values, vectors = torch.linalg.eigh(centred.mT @ centred / N)
    whiten, colour = (vectors @ torch.diag(values**power) @ vectors.mT for power in (-0.5, 0.5))
    u = whiten @ cross_covariance(x, group)
    u = u / u.norm()
    torch.testing.assert_close(
        leace(x, group)(x), x - centred @ whiten @ torch.outer(u, u) @ colour
    )


def test_no_other_erasure_of_the_group_changes_less_than_leace(data) -> None:
    x, group = data
    least = (leace(x, group)(x) - x).square().sum()
    assert (mean_difference(x, group)(x) - x).square().sum() > 1.01 * least
    best = leace(x, group)
    for seed in range(5):
        noise = 0.01 * torch.randn(
            D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        other = Erasure(
            best.mean, (best.read + noise) / ((best.read + noise) @ best.write), best.write
        )
        assert cross_covariance(other(x), group).abs().max() < 1e-12
        assert (other(x) - x).square().sum() > least


def test_what_leace_spares_stays_and_the_rest_of_the_difference_goes(data, features) -> None:
    x, group = data
    erased = leace(x, group, spared=features[:1])(x)
    torch.testing.assert_close(erased @ features[0], x @ features[0])
    left = cross_covariance(erased, group)
    along = (left @ features[0]) * features[0] / (features[0] @ features[0])
    torch.testing.assert_close(left, along)  # only along the spared feature vector
    assert along.norm() > 0.01


def test_sparing_a_feature_vector_twice_is_sparing_it_once(data, features) -> None:
    x, group = data
    twice = torch.stack([features[0], -2 * features[0], features[1]])
    for fit in (
        lambda spared: leace(x, group, spared=spared),
        lambda spared: projection(features[2], x.mean(0), spared=spared),
    ):
        torch.testing.assert_close(fit(twice).write, fit(features[:2]).write)


def test_the_strength_scales_the_edit_and_zero_is_none(data) -> None:
    x, group = data
    edit = mean_difference(x, group)
    assert torch.equal(edit(x, 0.0), x)
    torch.testing.assert_close(
        cross_covariance(edit(x, 0.25), group), 0.75 * cross_covariance(x, group)
    )


def test_fewer_inputs_than_dimensions_need_shrinkage(data) -> None:
    x, group = data
    rows = torch.cat([torch.arange(4), torch.arange(N - 4, N)])
    with pytest.raises(ValueError, match="shrinkage"):
        leace(x[rows], group[rows])
    assert (
        cross_covariance(leace(x[rows], group[rows], shrinkage=0.1)(x[rows]), group[rows])
        .abs()
        .max()
        < 1e-12
    )


@pytest.mark.parametrize("fit", [mean_difference, leace])
def test_groups_without_a_difference_are_refused(data, fit) -> None:
    x, group = data
    with pytest.raises(ValueError, match="empty"):
        fit(x, torch.zeros_like(group))
    with pytest.raises(ValueError, match="same mean"):
        fit(torch.ones_like(x), group)
    with pytest.raises(ValueError, match="between 0 and 1"):
        leace(x, group, shrinkage=1.5)


def test_an_edit_at_the_end_is_one_of_the_final_norms_input(tiny) -> None:
    tokens = torch.randint(1, 101, (5, 6), generator=torch.Generator().manual_seed(0))
    kept = []
    with tiny.hooks(
        fwd_hooks=[("ln_final.hook_in", lambda x, hook: kept.append(x.detach().clone()))]
    ):
        base = last_logits(tiny, tokens)
    x = kept[0][:, -1]
    edit = mean_difference(x, torch.tensor([True, True, False, False, False]))
    with edited(tiny, tiny.cfg.n_layers, -1, edit):
        logits = last_logits(tiny, tokens)
    torch.testing.assert_close(logits, Norm.of(tiny, "ln_final")(edit(x)) @ tiny.W_U + tiny.b_U)
    assert (logits - base).abs().max() > 1e-3
    assert torch.equal(last_logits(tiny, tokens), base)


@pytest.mark.parametrize("layer", [0, 1])
def test_steering_adds_each_vector_to_one_tokens_residual_stream(tiny, layer) -> None:
    """Against PyTorch's own hooks on the Hugging Face model."""
    tokens = torch.arange(1, 15).view(2, 7)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, tiny.cfg.d_model, generator=generator, dtype=torch.float64)
    logits = steer(tiny, tokens, layer, -3, vectors, batch_size=4)
    assert logits.shape == (3, 2, tiny.cfg.d_vocab)

    def before_the_block(vector):
        def add(module, args, kwargs):
            hidden = args[0].clone()
            hidden[:, 4] += vector
            return (hidden, *args[1:]), kwargs

        return add

    for vector, ours in zip(vectors, logits):
        block = blocks(tiny.original_model)[layer]
        handle = block.register_forward_pre_hook(before_the_block(vector), with_kwargs=True)
        try:
            expected = tiny.original_model(tokens).logits[:, -1]
        finally:
            handle.remove()
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    nothing = steer(tiny, tokens, layer, 4, 0 * vectors[:1])[0]
    torch.testing.assert_close(nothing, last_logits(tiny, tokens))
    assert not torch.allclose(logits[0], logits[1], rtol=1e-4)


def test_an_edit_acts_on_the_tokens_named_and_is_gone_after_an_error(tiny) -> None:
    tokens = torch.randint(1, 101, (2, 6), generator=torch.Generator().manual_seed(0))
    base = tiny(tokens)
    v = torch.linspace(
        -1, 1, tiny.cfg.d_model, dtype=torch.float64
    )  # LayerNorm would not see a constant
    with edited(tiny, 1, slice(3, 5), lambda x: x + v):
        changed = (tiny(tokens) - base).abs().amax((0, 2))
    assert (changed[:3] == 0).all() and (changed[3:] > 1e-6).all()
    with (
        pytest.raises(ValueError, match="layers are 0 to 1"),
        edited(tiny, 3, -1, lambda x: x),
    ):
        pass
    with pytest.raises(RuntimeError, match="mine"), edited(tiny, 0, -1, lambda x: x + v):
        raise RuntimeError("mine")
    assert torch.equal(tiny(tokens), base)
