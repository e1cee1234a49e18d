"""RelP: the model's outputs stay, and relevance is conserved where there are no biases."""

from __future__ import annotations

import pytest
import torch

from helpers.activation_scaling.objective import logit_diff
from helpers.activation_scaling.points import Points
from helpers.models.norms import Norm
from helpers.models.run import last_logits, read_activations
from helpers.prompts.prompts import Prompts
from helpers.ruler.relevance import gradient_maps, relevance_rules
from tests.conftest import random_model

pytestmark = pytest.mark.unit

LLAMA = "HuggingFaceTB/SmolLM2-135M-Instruct"


def prompts_of(model) -> Prompts:
    texts = ["w1 w2 w3 w4", "w5 w6 w7 w8"]
    return Prompts.of(model, texts, ["w11", "w12"], ["w13", "w14"])


def test_the_rules_change_no_output(tiny) -> None:
    tokens = prompts_of(tiny).tokens
    with torch.no_grad():
        before = last_logits(tiny, tokens)
        with relevance_rules(tiny):
            assert torch.allclose(last_logits(tiny, tokens), before, atol=1e-5)
        assert torch.equal(last_logits(tiny, tokens), before), "everything is off again"


def test_relevance_of_the_stream_sums_to_the_logit_difference(tokenizer) -> None:
    """In front of every layer, in a model without biases; the plain gradient has no such sum."""
    model = random_model(LLAMA, tokenizer)
    prompts = prompts_of(model)
    with torch.no_grad():
        difference = logit_diff(last_logits(model, prompts.tokens), prompts.correct, prompts.wrong)
    points = Points.of(model, prompts.n_pos, sites=["resid_post"])
    with relevance_rules(model):
        relevance = gradient_maps(model, prompts, points, mean=False)["resid_post"].sum(-1)
    plain = gradient_maps(model, prompts, points, mean=False)["resid_post"].sum(-1)
    expected = difference[:, None].expand_as(relevance)
    assert torch.allclose(relevance, expected, atol=1e-4 * float(difference.abs().max()))
    assert not torch.allclose(plain, expected, atol=1e-2 * float(difference.abs().max()))


def relp_by_formula(model, tokens, correct: int, wrong: int) -> torch.Tensor:
    """Relevance of the stream in front of layers 1 and 2 of one Llama prompt: [layer pos].

    The rules of Rezaei Jafari et al. (2025) written out as a forward pass with constants in it. An
    oracle of its own, because lxt, which has such rules, brings torchvision and zennit along.
    """
    names = ["blocks.0.hook_resid_pre"]
    names += [f"blocks.{layer}.attn.hook_pattern" for layer in range(2)]
    kept, _ = read_activations(model, tokens, names)

    def normed(x, name):
        norm = Norm.of(model, name)
        return norm.weight * x / norm.scale(x).detach()

    x, streams = kept[names[0]][0].clone().requires_grad_(), []
    for layer in range(2):
        attention, mlp = model.blocks[layer].attn, model.blocks[layer].mlp.original_component
        a, pattern = normed(x, f"blocks.{layer}.ln1"), kept[f"blocks.{layer}.attn.hook_pattern"][0]
        W_V = attention.W_V.repeat_interleave(len(attention.W_O) // len(attention.W_V), dim=0)
        for head in range(len(W_V)):
            x = x + pattern[head] @ (a @ W_V[head]) @ attention.W_O[head]
        u = normed(x, f"blocks.{layer}.ln2")
        gate, up = u @ mlp.gate_proj.weight.T, u @ mlp.up_proj.weight.T
        active = gate * torch.sigmoid(gate).detach()  # SiLU(g)/g is the sigmoid
        product = (active * up.detach() + active.detach() * up) / 2
        x = x + product @ mlp.down_proj.weight.T
        x.retain_grad()
        streams.append(x)
    logits = normed(x, "ln_final")[-1] @ model.W_U
    (logits[correct] - logits[wrong]).backward()
    return torch.stack([(x.detach() * x.grad).sum(-1) for x in streams])


def test_relevance_is_that_of_the_published_rules(tokenizer) -> None:
    model = random_model(LLAMA, tokenizer)
    prompts = prompts_of(model)
    points = Points.of(model, prompts.n_pos, sites=["resid_post"])
    with relevance_rules(model):
        found = gradient_maps(model, prompts, points, mean=False)["resid_post"]
    plain = gradient_maps(model, prompts, points, mean=False)["resid_post"]
    for row in range(len(prompts)):
        answers = int(prompts.correct[row]), int(prompts.wrong[row])
        expected = relp_by_formula(model, prompts.tokens[row : row + 1], *answers)
        assert torch.allclose(found[row], expected, atol=1e-4 * float(expected.abs().max()))
        assert not torch.allclose(plain[row], expected, atol=1e-2 * float(expected.abs().max()))
