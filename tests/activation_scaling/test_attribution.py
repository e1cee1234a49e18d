"""Attribution maps in float64 on four architectures, against plain definitions and each other."""

from itertools import product

import numpy as np
import pytest
import torch

from helpers.activation_scaling import attribution as attr
from helpers.activation_scaling.interventions import steered_logits
from helpers.activation_scaling.objective import Objective, logit_diff
from helpers.activation_scaling.points import Points
from helpers.activation_scaling.strength import Sweep, best_strength, sweep_strengths
from helpers.models.direct import direct_attribution, logit_diff_vector
from helpers.models.run import HOOKS, last_logits
from helpers.prompts.prompts import Prompts
from tests.conftest import rounds

pytestmark = pytest.mark.unit
FINE = np.geomspace(0.01, 100, 81)
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


@pytest.mark.parametrize("sites", ALL_SITES, ids="+".join)
def test_activation_patching_is_the_fall_of_the_logit_difference_when_one_activation_is_swapped(
    tiny, prompts, others, sites
):
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


def test_a_map_becomes_the_alpha_of_equation_5(tiny, prompts, scalars):
    with scalars.applied(tiny, 2.0):
        _, steered = tiny.run_with_cache(prompts.tokens)
    _, base = tiny.run_with_cache(prompts.tokens)
    first, alpha = "blocks.0.hook_attn_out", scalars.theta["attn_out"].detach()[0]
    torch.testing.assert_close(steered[first], base[first] * (1 + 2.0 * alpha[:, None]))
    assert (steered[first] - base[first]).abs().max() > 1e-4


def test_a_flip_is_where_the_answers_are_first_swapped_up_to_the_grid(tiny, prompts, scalars):
    flipped = attr.as_scalars({site: -a for site, a in scalars.theta.items()}, scalars.points)
    found = 0
    for theta, some in [(scalars, prompts), (flipped, prompts.at([1])), (flipped, prompts)]:
        swap, steers = sweep_strengths(tiny, some, theta, FINE).flips()
        base = difference(tiny, some)
        for row, beta in enumerate(swap.tolist()):
            if beta == beta:
                meant = 1 if base[row] < 0 else -1
                tried = beta * torch.tensor([0.95, 1.05]).outer(torch.tensor([meant, -meant]))
                one = some.at([row])
                logits = steered_logits(tiny, one.tokens, theta, tried.flatten())
                less, more = logit_diff(logits, one.correct, one.wrong).view(2, 2)
                assert less[0] * base[row] > 0 > more[0] * base[row]
                assert bool(more[1] * base[row] > 0) == steers[row]
                found += 1
    assert found, "nothing flipped: nothing was tested"


def test_flips_of_a_straight_line_are_its_zeros_and_of_a_flat_one_there_are_none():
    betas = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    # Base, slope for β < 0, slope for β > 0; where it flips on the meant side, whether it steers.
    table = [
        (-1.0, 1.0, 1.25, 0.8, True),
        (-1.0, -4.0, 1.25, 0.8, False),
        (2.0, 4.0, 1.0, 0.5, True),
        (2.0, 0.8, -0.5, 2.5, True),
        (2.0, -1.0, -1.0, float("nan"), False),
        (-2.0, 0.0, 0.0, float("nan"), False),
    ]
    base, below, above, swap, steers = map(torch.tensor, zip(*table))
    diff = base + torch.where(betas[:, None] < 0, below, above) * betas[:, None]
    found = Sweep(betas, diff, 0 * diff).flips()
    torch.testing.assert_close(found[0], swap, equal_nan=True)
    assert found[1].equal(steers)


@pytest.mark.parametrize("bad", [[0.0, 1.0], [1.0, 0.5], [float("nan")], [1.0, float("inf")], []])
def test_magnitudes_that_are_no_grid_are_refused(tiny, prompts, scalars, bad):
    with pytest.raises(ValueError, match="positive, finite and rising"):
        sweep_strengths(tiny, prompts, scalars, bad)


def test_the_best_strength_is_the_best_of_those_tried(tiny, prompts, scalars):
    objective, tried = Objective(margin=1.0, lambda_f=0.1, lambda_m=0.01), [0.1, 1.0, 10.0]
    sweep = sweep_strengths(tiny, prompts, scalars, tried)
    base, answers = last_logits(tiny, prompts.tokens), (prompts.correct, prompts.wrong)
    psi = {}
    for number, beta in enumerate(sweep.betas.tolist()):
        both = steered_logits(tiny, prompts.tokens, scalars, [beta, -beta])
        terms = objective.terms(beta * scalars.vec(), *both, base, *answers)
        ours = sweep.effectiveness(objective.margin)[number], sweep.faithfulness()[number]
        assert ours[0].mean().item() == pytest.approx(terms["E_m"].item(), abs=1e-5)
        assert ours[1].mean().item() == pytest.approx(terms["F"].item(), abs=1e-5)
        psi[number] = terms["psi"].item() if beta else -float("inf")
    assert best_strength(sweep, objective, scalars.vec()) == max(psi, key=psi.get)
    assert torch.equal(sweep.at([1]).diff[:, 0], sweep.diff[:, 1])


def test_the_best_strength_is_not_0_and_weighs_the_size_of_what_it_multiplies():
    betas = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    kl = torch.tensor([1.0, 2.0, 0.0, 2.0, 1.0])[:, None]  # best at 0, then at 1
    sweep, theta = Sweep(betas, 0 * kl, kl), torch.ones(3)
    for lambda_m, best in ((0.0, 1.0), (10.0, 0.5)):
        chosen = best_strength(sweep, Objective(lambda_f=1.0, lambda_m=lambda_m), theta)
        assert abs(betas[chosen]) == best


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
