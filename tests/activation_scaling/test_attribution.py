"""Attribution maps in float64 on four architectures, against plain definitions and each other."""

import pytest
import torch

from helpers.activation_scaling.attribution import (
    activ_patch,
    activations,
    as_scalars,
    attr_patch,
    direct_logit,
    noised_activations,
)
from helpers.activation_scaling.interventions import steered_logits
from helpers.activation_scaling.objective import Objective, logit_diff
from helpers.activation_scaling.points import Points
from helpers.activation_scaling.strength import best_strength, smallest_flip
from helpers.models.direct import direct_attribution, logit_diff_vector
from helpers.models.run import HOOKS, last_logits
from helpers.prompts.prompts import Prompts

pytestmark = pytest.mark.unit
ALL_SITES = [("attn_out", "mlp_out"), ("resid_post",), ("z",), ("v",), ("head_out", "mlp_out")]


@pytest.fixture
def prompts(tiny) -> Prompts:
    return Prompts.of(tiny, ["w5 w6 w7 w8 w9", "w15 w16 w17 w18 w19"], ["w1", "w3"], ["w2", "w4"])


@pytest.fixture
def others(tiny) -> Prompts:
    return Prompts.of(tiny, ["w5 w26 w7 w28 w9", "w15 w36 w17 w38 w19"], ["w1", "w3"], ["w2", "w4"])


def difference(tiny, prompts) -> torch.Tensor:
    return logit_diff(last_logits(tiny, prompts.tokens), prompts.correct, prompts.wrong)


def rounds(tiny) -> bool:
    """GPT-Neo computes its attention scores, and Llama its norms, in 32 bits whatever the model's precision."""
    return any(name in tiny.cfg.model_name for name in ("gpt-neo-1.3B", "SmolLM2"))


@pytest.mark.parametrize("sites", ALL_SITES, ids="+".join)
def test_activation_patching_is_the_fall_of_the_logit_difference_when_one_activation_is_swapped(
    tiny, prompts, others, sites
):
    points = Points.of(tiny, prompts.n_pos, sites=sites, positions=[1, 3, 5])
    maps = activ_patch(
        tiny, prompts, points, activations(tiny, others.tokens, points), batch_size=7
    )
    base = difference(tiny, prompts)
    _, cache = tiny.run_with_cache(others.tokens)
    for site in sites:
        for row, layer in enumerate(points.layers):
            name = HOOKS[site].format(layer=layer)
            heads = (
                [()]
                if not points.heads(site)
                else [(head,) for head in range(points.heads(site)[0])]
            )
            for column, pos in enumerate(points.positions):
                for head in heads:

                    def swap(h, hook):
                        h = h.clone()
                        h[(slice(None), pos, *head)] = cache[hook.name][(slice(None), pos, *head)]
                        return h

                    with tiny.hooks(fwd_hooks=[(name, swap)]):
                        patched = difference(tiny, prompts)
                    assert maps[site][(row, column, *head)].item() == pytest.approx(
                        (base - patched).mean().item(), abs=1e-6
                    )
    assert max(scores.abs().max() for scores in maps.values()) > 1e-3


@pytest.mark.parametrize("sites", ALL_SITES, ids="+".join)
def test_attribution_patching_is_the_limit_of_activation_patching_for_small_changes_and_not_for_whole_ones(
    tiny, prompts, others, sites
):
    points = Points.of(tiny, prompts.n_pos, sites=sites)
    other = activations(tiny, others.tokens, points)
    estimate = attr_patch(tiny, prompts, points, other)
    step, tolerance = (
        (2e-2, 1e-3) if rounds(tiny) else (1e-4, 1e-6)
    )  # a smaller step would drown in the rounding
    half, full = (
        activ_patch(tiny, prompts, points, other, strength=strength)
        for strength in (step / 2, step)
    )
    whole = activ_patch(tiny, prompts, points, other)
    for site in sites:
        # Twice the half step less the full one: the curvature cancels.
        torch.testing.assert_close(
            2 * half[site] - full[site], estimate[site], rtol=0, atol=tolerance
        )
    assert any((whole[site] - estimate[site]).abs().max() > 10 * tolerance for site in sites)


def test_patching_with_the_prompts_own_activations_does_nothing(tiny, prompts):
    points = Points.of(tiny, prompts.n_pos)
    own = activations(tiny, prompts.tokens, points)
    for maps in (activ_patch(tiny, prompts, points, own), attr_patch(tiny, prompts, points, own)):
        assert all(scores.abs().max() < 1e-6 for scores in maps.values())


def test_direct_attribution_at_the_last_position_is_part_of_the_logit_difference(tiny, prompts):
    answers = logit_diff_vector(tiny, prompts.correct, prompts.wrong)
    parts = direct_attribution(tiny, prompts.tokens, *answers)
    for sites in (("attn_out", "mlp_out"), ("head_out",)):
        points = Points.of(tiny, prompts.n_pos, sites=sites, positions=[-1])
        maps = direct_logit(tiny, prompts, points)
        heads = parts.heads.sum(-1)
        expected = {"head_out": heads, "attn_out": heads.sum(-1) + parts.attention_biases}
        expected["mlp_out"] = parts.mlps
        for site in sites:
            ours = maps[site][:, 0]
            torch.testing.assert_close(ours, expected[site].mean(0), rtol=1e-5, atol=1e-6)


def test_noise_corrupts_only_from_its_first_position_on_and_is_the_same_for_the_same_seed(
    tiny, prompts
):
    points = Points.of(tiny, prompts.n_pos)
    clean = activations(tiny, prompts.tokens, points)
    noised, again = (
        noised_activations(tiny, prompts, points, positions=[2], seed=3) for _ in range(2)
    )
    other = noised_activations(tiny, prompts, points, positions=[2], seed=4)
    where = ("mlp_out", 1)
    assert torch.equal(noised[where], again[where])
    assert not torch.allclose(noised[where], other[where])
    torch.testing.assert_close(noised[where][:, :2], clean[where][:, :2])
    assert (noised[where][:, 2] - clean[where][:, 2]).abs().max() > 1e-2


def test_direct_attribution_of_what_is_not_added_to_the_residual_stream_is_refused(tiny, prompts):
    with pytest.raises(ValueError, match="resid_post is not one"):
        direct_logit(tiny, prompts, Points.of(tiny, prompts.n_pos, sites=("resid_post",)))


def test_a_map_becomes_the_alpha_of_equation_5(tiny, prompts, others):
    points = Points.of(tiny, prompts.n_pos)
    maps = attr_patch(tiny, prompts, points, activations(tiny, others.tokens, points))
    scalars = as_scalars(maps, points)
    with scalars.applied(tiny, 2.0):
        _, steered = tiny.run_with_cache(prompts.tokens)
    _, base = tiny.run_with_cache(prompts.tokens)
    first = "blocks.0.hook_attn_out"
    alpha = maps["attn_out"][0]
    torch.testing.assert_close(steered[first], base[first] * (1 + 2.0 * alpha[:, None]))
    assert (steered[first] - base[first]).abs().max() > 1e-4


def test_the_smallest_flip_is_where_the_logit_difference_changes_sign(tiny, prompts, others):
    points = Points.of(tiny, prompts.n_pos)
    scalars = as_scalars(
        attr_patch(tiny, prompts, points, activations(tiny, others.tokens, points)), points
    )
    flips = smallest_flip(tiny, prompts, scalars, tolerance=1e-4)
    found = 0
    for sign, side in ((1, flips.up), (-1, flips.down)):
        for row, beta in enumerate(side):
            if beta != beta:
                continue
            found += 1
            one = prompts.at([row])
            just_less, just_more = (
                logit_diff(logits, one.correct, one.wrong).item()
                for logits in steered_logits(
                    tiny, one.tokens, scalars, [sign * beta * 0.999, sign * beta * 1.001]
                )
            )
            assert just_less * flips.base[row] > 0 > just_more * flips.base[row]
    assert found, "nothing flipped: nothing was tested"


def test_what_does_nothing_never_flips(tiny, prompts):
    points = Points.of(tiny, prompts.n_pos)
    nothing = as_scalars(
        {site: torch.zeros(2, prompts.n_pos, dtype=torch.float64) for site in points.sites}, points
    )
    flips = smallest_flip(tiny, prompts, nothing)
    assert all(beta != beta for beta in [*flips.up, *flips.down])
    with pytest.raises(ValueError, match="positive and rising"):
        smallest_flip(tiny, prompts, nothing, [0.0, 1.0])


def test_the_best_strength_is_the_best_of_those_tried(tiny, prompts, others):
    points = Points.of(tiny, prompts.n_pos)
    scalars = as_scalars(
        attr_patch(tiny, prompts, points, activations(tiny, others.tokens, points)), points
    )
    objective = Objective(margin=1.0, lambda_f=0.1)
    magnitudes = [0.1, 1.0, 10.0]
    best = best_strength(tiny, prompts, scalars, objective, magnitudes)
    base = last_logits(tiny, prompts.tokens)

    def psi(beta):
        plus, minus = steered_logits(tiny, prompts.tokens, scalars, [beta, -beta])
        return objective.terms(
            beta * scalars.vec(), plus, minus, base, prompts.correct, prompts.wrong
        )["psi"].item()

    assert best in [sign * magnitude for magnitude in magnitudes for sign in (1, -1)]
    assert psi(best) == max(psi(sign * magnitude) for magnitude in magnitudes for sign in (1, -1))


def test_maps_of_each_prompt_are_those_of_the_prompts_alone_and_their_mean_is_the_map(
    tiny, prompts, others
):
    points = Points.of(tiny, prompts.n_pos, sites=("head_out", "mlp_out"), positions=[1, -1])
    other = activations(tiny, others.tokens, points)
    first = {place: values[:1] for place, values in other.items()}
    for method, given in ((activ_patch, (other,)), (attr_patch, (other,)), (direct_logit, ())):
        each = method(tiny, prompts, points, *given, mean=False)
        alone = method(tiny, prompts.at([0]), points, *(given and (first,)))
        for site, scores in method(tiny, prompts, points, *given).items():
            torch.testing.assert_close(each[site].mean(0), scores)
            torch.testing.assert_close(each[site][0], alone[site], atol=1e-6, rtol=1e-5)
            assert not torch.allclose(each[site][0], each[site][1])
