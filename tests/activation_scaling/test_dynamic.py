"""Dynamic scalars on a padded batch, in float64 on four architectures."""

import pytest
import torch

from helpers.activation_scaling.dynamic import DynScalar, DynScalarBias, DynScalarHidden
from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar, steered_logits
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts
from tests.conftest import mixed, rounds

pytestmark = pytest.mark.unit
KINDS = (DynScalar, DynScalarBias, DynScalarHidden)
TEXTS = ["w5 w6 w7 w8 w9 w10 w11", "w15 w16 w17", "w25 w26 w27 w28 w29", "w35 w36 w37"]


@pytest.fixture
def prompts(tiny) -> Prompts:
    return mixed(tiny, TEXTS, ["w1"] * 4, ["w2"] * 4)


def drawn(kind, tiny, std: float = 0.5, sites=("attn_out", "mlp_out")):
    made = kind(Points.of(tiny, None, sites=sites), dtype=torch.float64)
    made.reset(seed=1, std=std)
    return made


def test_alpha_is_the_product_of_g_with_the_unit_activation(tiny, prompts):
    intervention = drawn(DynScalar, tiny)
    tokens = prompts.tokens[:1]  # the longest: no padding
    _, cache = tiny.run_with_cache(tokens)
    alpha = intervention.alpha(tiny, tokens[0])
    for site in ("attn_out", "mlp_out"):
        for layer in range(2):
            h, g = cache[f"blocks.{layer}.hook_{site}"][0], intervention.theta[site][layer]
            expected = torch.stack([g @ (row / row.norm()) for row in h])
            torch.testing.assert_close(alpha[site][layer], expected)


def test_scalars_do_not_depend_on_the_length_of_an_activation_and_a_zero_one_has_none(tiny):
    intervention = drawn(DynScalar, tiny)
    h = torch.randn(1, 3, tiny.cfg.d_model, dtype=torch.float64)
    alpha = intervention.scalars(h, "attn_out", 0)
    torch.testing.assert_close(intervention.scalars(3 * h, "attn_out", 0), alpha)
    torch.testing.assert_close(intervention.scalars(-h, "attn_out", 0), -alpha)
    h.requires_grad_()
    zero = intervention.scalars(h * 0, "attn_out", 0)
    assert torch.equal(zero, torch.zeros_like(zero))
    zero.sum().backward()
    assert h.grad.isfinite().all()


def test_the_bias_is_added_to_every_scalar(tiny):
    plain, biased = drawn(DynScalar, tiny), drawn(DynScalarBias, tiny)
    with torch.no_grad():
        biased.theta["attn_out"][0, :-1] = plain.theta["attn_out"][0]
        biased.theta["attn_out"][0, -1] = 0.25
    h = torch.randn(2, 3, tiny.cfg.d_model, dtype=torch.float64)
    torch.testing.assert_close(
        biased.scalars(h, "attn_out", 0), plain.scalars(h, "attn_out", 0) + 0.25
    )


def test_the_hidden_layer_is_the_sum_that_its_equation_says_and_starts_from_almost_nothing(tiny):
    intervention, expected = drawn(DynScalarHidden, tiny), 0.0
    h = torch.randn(tiny.cfg.d_model, dtype=torch.float64)
    for unit in intervention.theta["mlp_out"][1]:  # w, b and u of a unit
        expected = expected + unit[-1] * torch.tanh(unit[:-2] @ (h / h.norm()) + unit[-2])
    torch.testing.assert_close(intervention.scalars(h[None, None], "mlp_out", 1)[0, 0], expected)
    other = drawn(DynScalarHidden, tiny)
    other.reset(seed=2)
    assert not torch.equal(other.theta["mlp_out"][..., 0], intervention.theta["mlp_out"][..., 0])
    quiet = drawn(DynScalarHidden, tiny, std=1e-5)
    assert quiet.scalars(h[None, None], "mlp_out", 1).abs() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", ["resid_post", "z", "v"])
def test_other_sites_are_steered_too_and_strength_0_changes_no_bit(tiny, prompts, kind, site):
    intervention = drawn(kind, tiny, sites=(site,))
    base = last_logits(tiny, prompts.tokens)
    none, some = steered_logits(tiny, prompts.tokens, intervention, [0.0, 1.0])
    with intervention.applied(tiny, 0):
        assert torch.equal(last_logits(tiny, prompts.tokens), base)
    torch.testing.assert_close(none, base)
    assert (some - base).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_theta_are_those_of_finite_differences(tiny, prompts, kind):
    intervention = drawn(kind, tiny)
    theta = intervention.theta["attn_out"]

    def total() -> torch.Tensor:
        with intervention.applied(tiny, 1.0):
            return last_logits(tiny, prompts.tokens).pow(2).sum()

    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(total(), [theta])
    # Large enough to stand out from the rounding, small enough for the slope.
    step, tolerance = (1e-3, 2e-2) if rounds(tiny) else (1e-4, 1e-5)
    with torch.no_grad():
        theta.add_(step * direction)
        above = total()
        theta.sub_(2 * step * direction)
        below = total()
    slope = (above - below).item() / (2 * step)
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=tolerance)
    assert abs(slope) > 1e-3


def test_points_tied_to_positions_and_head_outputs_are_refused(tiny, prompts):
    tied = ActivScalar(Points.of(tiny, prompts.n_pos), dtype=torch.float64)
    with pytest.raises(ValueError, match="of several lengths"):
        fit(tiny, tied, prompts, Objective(), learning_rate=0.1)
    with pytest.raises(ValueError, match="n_pos=None"):
        DynScalar(Points.of(tiny, 4))
    with pytest.raises(ValueError, match="use z"):
        DynScalar(Points.of(tiny, None, sites=("head_out",)))


def test_alpha_of_a_row_of_a_padded_batch_is_that_of_the_prompt_alone(tiny, prompts):
    intervention = drawn(DynScalar, tiny)
    row = prompts.tokens[1]  # the shortest, padded
    padded, alone = (intervention.alpha(tiny, tokens) for tokens in (row, row[: (row >= 0).sum()]))
    for site, alpha in alone.items():
        assert alpha.shape == (2, 4) and torch.equal(padded[site], alpha)
