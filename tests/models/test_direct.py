"""Direct logit attribution against the logits themselves, plain definitions and autograd."""

from __future__ import annotations

import pytest
import torch

from helpers.models import direct
from helpers.models.direct import (
    direct_attribution,
    logit_diff_vector,
    readout,
    through_attention,
)
from helpers.models.norms import Norm
from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.observables import Observable

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 15).view(2, 7)
CORRECT, WRONG = torch.tensor([3, 8]), torch.tensor([5, 9])
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}  # parts of GPT-Neo and Llama are computed in 32 bits


def logit_diff(logits: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(len(logits))
    return logits[rows, CORRECT] - logits[rows, WRONG]


@pytest.mark.parametrize("per_prompt", [False, True])
def test_the_parts_sum_to_the_weighted_logits_and_each_kind_of_part_is_needed(tiny, per_prompt):
    n = Observable.of(tiny, {"w3": 1, "w5": -2.5})
    vector, bias = (n.vector(tiny), n.bias(tiny))
    expected = n.measure(last_logits(tiny, TOKENS))
    if per_prompt:
        vector, bias = logit_diff_vector(tiny, CORRECT, WRONG)
        expected = logit_diff(last_logits(tiny, TOKENS))
    parts = direct_attribution(tiny, TOKENS, vector, bias, batch_size=1)
    torch.testing.assert_close(parts.total(), expected, **TOLERANCE)
    assert parts.heads.shape == (2, tiny.cfg.n_layers, tiny.cfg.n_heads, 7)
    for name, part in vars(parts).items():
        without = parts.total() - part.reshape(2, -1).sum(1)
        there = bool(part.abs().max() > 0)
        assert there != torch.allclose(without, expected, **TOLERANCE), name


def test_a_heads_part_is_what_it_writes_times_the_gradient_of_the_norm_with_its_scale_held(tiny):
    m = Observable.of(tiny, {"w3": 1, "w5": -1}).vector(tiny)
    parts = direct_attribution(tiny, TOKENS, m)
    layers = range(tiny.cfg.n_layers)
    names = ["ln_final.hook_in", *(f"blocks.{layer}.attn.hook_z" for layer in layers)]
    kept, _ = read_activations(tiny, TOKENS, names)
    x = kept["ln_final.hook_in"][:, -1].requires_grad_(True)
    centred = x - x.mean(-1, keepdim=True) if tiny.cfg.normalization_type == "LN" else x
    sigma = (centred.pow(2).mean(-1, keepdim=True) + tiny.cfg.eps).sqrt().detach()
    (y,) = torch.autograd.grad(((tiny.ln_final.weight * centred / sigma) @ m).sum(), x)
    for layer in layers:
        z = kept[f"blocks.{layer}.attn.hook_z"][:, -1]
        expected = torch.einsum("bhe,hem,bm->bh", z, tiny.blocks[layer].attn.W_O, y)
        torch.testing.assert_close(parts.heads[:, layer].sum(-1), expected, **TOLERANCE)


def test_the_readout_gives_the_logit_difference_at_every_position(tiny):
    kept, _ = read_activations(tiny, TOKENS, ["ln_final.hook_in"])
    x, logits = kept["ln_final.hook_in"], tiny(TOKENS)
    m, bias = logit_diff_vector(tiny, CORRECT, WRONG)
    r, c = readout(tiny, x, m[:, None], bias[:, None])
    for pos in range(7):
        expected = logit_diff(logits[:, pos])
        torch.testing.assert_close((r[:, pos] * x[:, pos]).sum(-1) + c[:, 0], expected)
        # With another position's scale it does not.
        other = (r[:, pos - 1] * x[:, pos]).sum(-1) + c[:, 0]
        assert pos == 0 or not torch.allclose(other, expected)


def test_a_norm_after_attention_adds_its_bias(tiny, monkeypatch):
    """No family of the tests has a bias there, so a norm of one's own stands in."""
    r, y, weight, bias = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)).double()
    norm = Norm("after", weight, bias, eps=1e-5, centred=True)
    monkeypatch.setattr(direct, "norm_after", lambda model, layer, part: norm)
    own, constant = through_attention(tiny, 0, r, {"after.hook_in": y}.__getitem__)
    torch.testing.assert_close(own @ y + constant, r @ norm(y))
    assert constant.abs() > 0.1
