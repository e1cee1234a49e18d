"""Interventions against independent hooks, finite differences, and what they promise."""

from __future__ import annotations

import pytest
import torch

from helpers.activation_scaling.interventions import ActivScalar, SteerVec, steered_logits
from helpers.activation_scaling.points import Points
from helpers.models.run import HOOKS, last_logits
from tests.conftest import rounds
from tests.plain_hooks import independent_logits

pytestmark = pytest.mark.unit
KINDS = [ActivScalar, SteerVec]
TOKENS = torch.arange(1, 15).view(2, 7)


def random(kind, points: Points, seed: int = 0, std: float = 0.3):
    intervention = kind(points, dtype=torch.float64)
    intervention.reset(seed, std)
    return intervention


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sites", [("attn_out",), ("mlp_out",), ("resid_post",), ("attn_out", "mlp_out", "resid_post")]
)
def test_steered_logits_equal_plain_hooks_on_the_wrapped_model(tiny, kind, sites):
    intervention = random(kind, Points.of(tiny, 7, sites=sites, layers=[1, 0], positions=[2, -1]))
    ours = steered_logits(tiny, TOKENS, intervention, [0.7, -1.0])
    for beta, logits in zip((0.7, -1.0), ours):
        plain = independent_logits(tiny.original_model, intervention, TOKENS, beta)
        assert torch.allclose(logits, plain, atol=1e-10)
    assert not torch.allclose(ours[0], last_logits(tiny, TOKENS), atol=1e-3), "nothing happened"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", HOOKS)
def test_beta_zero_changes_no_bit(tiny, kind, site):
    intervention = random(kind, Points.of(tiny, 7, sites=[site]))
    # In one batch of the same size: matrix products round differently in batches of other sizes.
    both = last_logits(tiny, TOKENS.repeat(2, 1))
    steered = steered_logits(tiny, TOKENS, intervention, [0.0, 1.0])
    assert torch.equal(steered[0], both[:2])
    assert not torch.equal(steered[1], both[2:])
    base = last_logits(tiny, TOKENS)
    with intervention.applied(tiny, beta=0):
        assert torch.equal(last_logits(tiny, TOKENS), base)
    with intervention.applied(tiny, beta=1e-3):
        assert not torch.equal(last_logits(tiny, TOKENS), base)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", HOOKS)
@pytest.mark.slow
def test_gradients_equal_finite_differences(tiny, kind, site):
    intervention = random(kind, Points.of(tiny, 7, sites=[site], positions=[1, 6]))
    theta = intervention.theta[site]
    weight = torch.randn(101, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def value() -> torch.Tensor:
        with intervention.applied(tiny, beta=0.8):
            return (last_logits(tiny, TOKENS) @ weight).sum()

    value().backward()
    # GPT-Neo's attention and Llama's RMSNorm compute in 32 bits whatever the weights are: a wider
    # step keeps their rounding out of the difference, and the fourth-order stencil keeps it exact.
    step, tolerance = (1e-2, 5e-4) if rounds(tiny) else (1e-4, 1e-6)
    flat = theta.data.view(-1)
    for index in torch.linspace(0, flat.numel() - 1, 6).long():
        before = flat[index].item()
        difference = 0.0
        for shift, weight_of in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            flat[index] = before + shift * step
            difference += weight_of * value().item() / (12 * step)
        flat[index] = before
        expected = pytest.approx(difference, rel=tolerance, abs=tolerance)
        assert theta.grad.view(-1)[index].item() == expected
    assert theta.grad.abs().max() > 10 * tolerance, "nothing would agree with anything"


def test_scaling_every_head_output_alike_equals_scaling_attn_out_less_its_bias(tiny):
    heads = ActivScalar(Points.of(tiny, 7, sites=["head_out"]), dtype=torch.float64)
    z = ActivScalar(Points.of(tiny, 7, sites=["z"]), dtype=torch.float64)
    for intervention, site in ((heads, "head_out"), (z, "z")):
        intervention.theta[site].data.fill_(0.5)
    outputs = []
    for intervention in (heads, z):
        with intervention.applied(tiny, 1.0):
            _, cache = tiny.run_with_cache(TOKENS)
        outputs.append(cache["blocks.0.hook_attn_out"])
    _, cache = tiny.run_with_cache(TOKENS)
    before = cache["blocks.0.hook_attn_out"]
    bias = tiny.blocks[0].attn.o.bias
    bias = 0 if bias is None else bias
    assert torch.allclose(outputs[0], (before - bias) * 1.5 + bias, atol=1e-10)
    assert torch.equal(outputs[0], outputs[1])


def test_vectors_on_head_outputs_equal_their_sum_on_attn_out(tiny):
    heads = random(SteerVec, Points.of(tiny, 7, sites=["head_out"]))
    summed = SteerVec(Points.of(tiny, 7, sites=["attn_out"]), dtype=torch.float64)
    summed.theta["attn_out"].data.copy_(heads.theta["head_out"].sum(dim=2))
    a, b = (steered_logits(tiny, TOKENS, intervention, [1.0]) for intervention in (heads, summed))
    assert torch.allclose(a, b, atol=1e-10)
    assert not torch.allclose(a[0], last_logits(tiny, TOKENS), atol=1e-3)


def test_scaling_a_head_scales_its_share_of_attn_out_alone(tiny):
    intervention = ActivScalar(
        Points.of(tiny, 7, sites=["head_out"], layers=[1], positions=[3]), dtype=torch.float64
    )
    intervention.theta["head_out"].data[0, 0, 2] = -1.0  # head 2 at position 3 is removed
    _, base = tiny.run_with_cache(TOKENS)
    with intervention.applied(tiny, 1.0):
        _, steered = tiny.run_with_cache(TOKENS)
    share = base["blocks.1.attn.hook_z"][:, 3, 2] @ tiny.W_O[1, 2]
    change = steered["blocks.1.hook_attn_out"] - base["blocks.1.hook_attn_out"]
    assert torch.allclose(change[:, 3], -share, atol=1e-10)
    assert share.norm() > 1e-3
    assert change[:, [0, 1, 2, 4, 5, 6]].abs().max() < 1e-12


def hooks_on(model) -> int:
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


def test_hooks_are_gone_after_the_block_and_after_an_exception(tiny):
    intervention = random(ActivScalar, Points.of(tiny, 7))
    base = last_logits(tiny, TOKENS)
    with intervention.applied(tiny, 1.0):
        assert hooks_on(tiny) > 0
    assert hooks_on(tiny) == 0
    with pytest.raises(RuntimeError, match="boom"), intervention.applied(tiny, 1.0):
        raise RuntimeError("boom")
    with (
        pytest.raises(ValueError, match="tied to prompts of 7 tokens, and this one has 6"),
        intervention.applied(tiny, 1.0),
    ):
        last_logits(tiny, TOKENS[:, 1:])
    assert hooks_on(tiny) == 0
    assert torch.equal(last_logits(tiny, TOKENS), base)


def test_a_beta_for_each_prompt_equals_one_prompt_at_a_time(tiny):
    intervention = random(SteerVec, Points.of(tiny, 7))
    with intervention.applied(tiny, torch.tensor([1.0, -0.5], dtype=torch.float64)):
        together = last_logits(tiny, TOKENS)
    for row, beta in enumerate((1.0, -0.5)):
        with intervention.applied(tiny, beta):
            alone = last_logits(tiny, TOKENS[row : row + 1])[0]
        assert torch.allclose(alone, together[row], atol=1e-10)


def test_a_beta_for_another_number_of_prompts_is_an_error(tiny):
    applied = random(ActivScalar, Points.of(tiny, 7)).applied(tiny, torch.ones(3))
    with pytest.raises(ValueError, match="3 values for a batch of 2"), applied:
        last_logits(tiny, TOKENS)


def test_points_of_another_model_are_refused(tiny):
    points = Points.of(tiny, 7)
    other = ActivScalar(Points(**{**vars(points), "n_layers": 3}))
    with pytest.raises(ValueError, match="another model"), other.applied(tiny, 1.0):
        pass


def test_a_new_intervention_does_nothing_and_counts_its_parameters(tiny):
    scalars, vectors = (kind(Points.of(tiny, 7), dtype=torch.float64) for kind in KINDS)
    assert scalars.n_parameters() == 2 * 2 * 7  # sites × layers × positions
    assert vectors.n_parameters() == 2 * 2 * 7 * tiny.cfg.d_model
    assert torch.equal(steered_logits(tiny, TOKENS, scalars, [1.0])[0], last_logits(tiny, TOKENS))
