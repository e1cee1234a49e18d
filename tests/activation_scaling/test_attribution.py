"""Attribution maps in float64 on four architectures, against plain definitions and each other."""

from functools import partial
from itertools import product

import pytest
import torch

from helpers.activation_scaling import attribution as attr
from helpers.activation_scaling.objective import logit_diff
from helpers.activation_scaling.points import Points
from helpers.models.direct import direct_attribution, logit_diff_vector
from helpers.models.run import HOOKS, last_logits
from helpers.prompts.prompts import Prompts
from tests.conftest import rounds

pytestmark = pytest.mark.unit
ALL_SITES = [("attn_out", "mlp_out"), ("resid_post",), ("z",), ("v",), ("head_out", "mlp_out")]


@pytest.fixture
def prompts(tiny) -> Prompts:
    return Prompts.of(tiny, ["w5 w6 w7 w8 w9", "w15 w16 w17 w18 w19"], ["w1", "w3"], ["w2", "w4"])


@pytest.fixture
def others(tiny) -> Prompts:
    return Prompts.of(tiny, ["w5 w26 w7 w28 w9", "w15 w36 w17 w38 w19"], ["w1", "w3"], ["w2", "w4"])


@pytest.fixture
def scalars(tiny, prompts, others):
    points = Points.of(tiny, prompts.n_pos)
    other = attr.activations(tiny, others.tokens, points)
    return attr.as_scalars(attr.attr_patch(tiny, prompts, points, other), points)


def difference(tiny, prompts) -> torch.Tensor:
    return logit_diff(last_logits(tiny, prompts.tokens), prompts.correct, prompts.wrong)


def test_maps_follow_the_order_of_their_points(tiny, prompts):
    def found(layers, positions):
        points = Points.of(tiny, prompts.n_pos, layers=layers, positions=positions)
        return attr.direct_logit(tiny, prompts, points)["mlp_out"]

    assert torch.equal(found([1, 0], [4, 2]), found([0, 1], [2, 4]).flip(0, 1))


@pytest.mark.parametrize("runs_as_on", ["cpu", "cuda"])
@pytest.mark.parametrize("sites", ALL_SITES, ids="+".join)
@pytest.mark.slow
def test_activation_patching_is_the_fall_of_the_logit_difference_when_one_activation_is_swapped(
    tiny, prompts, others, sites, runs_as_on, monkeypatch
):
    groups = partial(attr._groups, device=torch.device(runs_as_on))
    monkeypatch.setattr(attr, "_groups", lambda positions, device: groups(positions))
    points = Points.of(tiny, prompts.n_pos, sites=sites, positions=[1, 3, 5])
    other = attr.activations(tiny, others.tokens, points)
    maps = attr.activ_patch(tiny, prompts, points, other, batch_size=7)
    base = difference(tiny, prompts)
    _, cache = tiny.run_with_cache(others.tokens)

    def swapped(name, *where):
        def swap(h, hook):
            h = h.clone()
            h[(slice(None), *where)] = cache[name][(slice(None), *where)]
            return h

        with tiny.hooks(fwd_hooks=[(name, swap)]):
            return difference(tiny, prompts)

    for site in sites:
        heads = range(*points.heads(site)) if points.heads(site) else [None]
        for (row, layer), (column, pos), head in product(
            enumerate(points.layers), enumerate(points.positions), heads
        ):
            head = () if head is None else (head,)
            expected = (base - swapped(HOOKS[site].format(layer=layer), pos, *head)).mean().item()
            ours = maps[site][(row, column, *head)].item()
            assert ours == pytest.approx(expected, abs=1e-6)
    assert max(scores.abs().max() for scores in maps.values()) > 1e-3


@pytest.mark.parametrize("sites", ALL_SITES, ids="+".join)
@pytest.mark.slow
def test_attribution_patching_is_the_limit_of_activation_patching_for_small_changes_only(
    tiny, prompts, others, sites
):
    points = Points.of(tiny, prompts.n_pos, sites=sites)
    own, other = (attr.activations(tiny, each.tokens, points) for each in (prompts, others))
    estimate = attr.attr_patch(tiny, prompts, points, other)

    def part_of_the_way(step: float) -> attr.Maps:
        near = {place: own[place].lerp(other[place], step) for place in own}
        maps = attr.activ_patch(tiny, prompts, points, near)
        return {site: maps[site] / step for site in maps}

    # A smaller step would drown in the rounding.
    step, tolerance = (2e-2, 1e-3) if rounds(tiny) else (1e-4, 1e-6)
    half, full, whole = part_of_the_way(step / 2), part_of_the_way(step), part_of_the_way(1.0)
    for site in sites:
        # Twice the half step less the full one: the curvature cancels.
        limit = 2 * half[site] - full[site]
        torch.testing.assert_close(limit, estimate[site], rtol=0, atol=tolerance)
    assert any((whole[site] - estimate[site]).abs().max() > 10 * tolerance for site in sites)


def test_patching_with_the_prompts_own_activations_does_nothing(tiny, prompts):
    points = Points.of(tiny, prompts.n_pos)
    own = attr.activations(tiny, prompts.tokens, points)
    for method in (attr.activ_patch, attr.attr_patch):
        for scores in method(tiny, prompts, points, own).values():
            assert scores.abs().max() < 1e-6


def test_direct_attribution_at_the_last_position_is_part_of_the_logit_difference(tiny, prompts):
    answers = logit_diff_vector(tiny, prompts.correct, prompts.wrong)
    parts = direct_attribution(tiny, prompts.tokens, *answers)
    heads = parts.heads.sum(-1)
    expected = {"head_out": heads, "attn_out": heads.sum(-1) + parts.attention_biases}
    expected["mlp_out"] = parts.mlps
    for sites in (("attn_out", "mlp_out"), ("head_out",)):
        points = Points.of(tiny, prompts.n_pos, sites=sites, positions=[-1])
        for site, ours in attr.direct_logit(tiny, prompts, points).items():
            mean = expected[site].mean(0)
            torch.testing.assert_close(ours[:, 0], mean, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="resid_post is not one"):
        attr.direct_logit(tiny, prompts, Points.of(tiny, prompts.n_pos, sites=("resid_post",)))


def test_noise_leaves_the_first_token_alone_and_is_the_same_for_the_same_seed(tiny, prompts):
    points = Points.of(tiny, prompts.n_pos)
    clean = attr.activations(tiny, prompts.tokens, points)["mlp_out", 1]
    runs = [attr.noised_activations(tiny, prompts, points, seed=seed) for seed in (3, 3, 4)]
    noised, again, other = (run["mlp_out", 1] for run in runs)
    assert torch.equal(noised, again) and not torch.allclose(noised, other)
    torch.testing.assert_close(noised[:, :1], clean[:, :1])
    assert ((noised - clean)[:, 1:].abs().amax((0, 2)) > 1e-2).all()
    # Each prompt has noise of its own, of the seed that follows.
    second = attr.noised_activations(tiny, prompts.at([1]), points, seed=4)["mlp_out", 1]
    torch.testing.assert_close(noised[1:2], second, rtol=1e-5, atol=1e-6)


def test_a_map_becomes_the_alpha_of_equation_5(tiny, prompts, scalars):
    with scalars.applied(tiny, 2.0):
        _, steered = tiny.run_with_cache(prompts.tokens)
    _, base = tiny.run_with_cache(prompts.tokens)
    first, alpha = "blocks.0.hook_attn_out", scalars.theta["attn_out"].detach()[0]
    torch.testing.assert_close(steered[first], base[first] * (1 + 2.0 * alpha[:, None]))
    assert (steered[first] - base[first]).abs().max() > 1e-4


def test_maps_of_each_prompt_are_those_of_the_prompts_alone_and_their_mean_is_the_map(
    tiny, prompts, others
):
    points = Points.of(tiny, prompts.n_pos, sites=("head_out", "mlp_out"), positions=[1, -1])
    other = attr.activations(tiny, others.tokens, points)
    first = {place: values[:1] for place, values in other.items()}
    for method in (attr.activ_patch, attr.attr_patch, attr.direct_logit):
        given, of_first = ((), ()) if method is attr.direct_logit else ((other,), (first,))
        each = method(tiny, prompts, points, *given, mean=False)
        alone = method(tiny, prompts.at([0]), points, *of_first)
        for site, scores in method(tiny, prompts, points, *given).items():
            torch.testing.assert_close(each[site].mean(0), scores)
            torch.testing.assert_close(each[site][0], alone[site], atol=1e-6, rtol=1e-5)
            assert not torch.allclose(each[site][0], each[site][1])
