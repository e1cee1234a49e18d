"""The embedded model: offline, fast, and the same as the plain checkpoint; one fit end to end."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import LlamaForCausalLM

from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.activation_scaling.objective import Objective, evaluate, logit_diff
from helpers.activation_scaling.points import Points
from helpers.models.load import describe, load_model
from helpers.models.packed import packed_model
from helpers.models.run import last_logits
from helpers.prompts.tasks import TEMPLATES, make_task
from tests.plain_hooks import independent_logits

pytestmark = pytest.mark.integration

OFFLINE = """
import socket, time
def refuse(*args, **kwargs): raise AssertionError("the network was asked")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from helpers.models.load import describe, load_model
start = time.perf_counter()
print(describe(load_model("smollm2", device="cpu")))
print(time.perf_counter() - start)
"""


@pytest.fixture(scope="module")
def plain() -> LlamaForCausalLM:
    how = {"dtype": torch.float32, "attn_implementation": "eager"}
    return LlamaForCausalLM.from_pretrained(packed_model("smollm2"), **how).eval()


def test_a_new_process_loads_the_model_without_any_network():
    command = [sys.executable, "-c", OFFLINE]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    described, seconds = printed.splitlines()
    assert described.startswith(
        "smollm2 (30 layers, 9 heads of 64, d_model 576, vocabulary 49,152, RMSNorm)"
    )
    # Some 2 s on an idle machine; a limit of 30 still tells a conversion or a retry.
    assert float(seconds) < 30


@pytest.mark.parametrize("dtype", ["float32", torch.int8, None])
def test_a_dtype_that_no_weights_have_is_refused_before_anything_is_loaded(dtype):
    with pytest.raises(TypeError, match="dtype = .* must be one of PyTorch's"):
        load_model("smollm2", device="cpu", dtype=dtype)


def test_the_model_is_the_plain_checkpoint_frozen_and_described(smollm2, plain):
    assert not smollm2.training
    assert not any(weight.requires_grad for weight in smollm2.original_model.parameters())
    assert "cpu · float32 · checkpoint b179c9523d0e" in describe(smollm2)
    tokens = make_task(smollm2, "CCC").train.tokens
    with torch.no_grad():
        ours, theirs = last_logits(smollm2, tokens), plain(tokens).logits[:, -1]
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, theirs.roll(1, dims=0), atol=1)


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_measures_of_random_interventions_agree_with_plain_hooks(smollm2, plain, kind):
    """E₀, F and M₀ written out from Eq. 6 to 8 on logits that PyTorch's own hooks made."""
    prompts = make_task(smollm2, "IOI", n_train=3, n_test=3).test
    sites = ["attn_out", "mlp_out", "resid_post"]
    intervention = kind(Points.of(smollm2, prompts.n_pos, sites=sites))
    intervention.reset(seed=1, std=0.03)
    rows = torch.arange(len(prompts))
    with torch.no_grad():
        base = plain(prompts.tokens).logits[:, -1].log_softmax(-1)
        E = F = 0.0
        for beta in (1.0, -1.0):
            logits = independent_logits(plain, intervention, prompts.tokens, beta)
            gap = beta * (logits[rows, prompts.correct] - logits[rows, prompts.wrong])
            E -= torch.relu(-gap).mean().item()
            steered = logits.log_softmax(-1)
            F -= (steered.exp() * (steered - base)).sum(-1).mean().item()
    measured = evaluate(smollm2, intervention, prompts)
    assert (measured.E0, measured.F) == pytest.approx((E, F), abs=1e-4)
    counts = [(theta.abs() >= 0.01).sum().item() for theta in intervention.theta.values()]
    assert measured.M0 == -sum(counts)
    assert E < -0.1 and F < -0.01, "an intervention that does nothing would agree with anything"


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_gives_prompts_of_one_length_that_the_model_can_take(smollm2, name):
    lengths = []
    for template in range(len(TEMPLATES[name])):
        task = make_task(smollm2, name, template=template, n_train=12, n_test=12)
        test = task.test
        assert len(task.train) == len(test) == 12 and task.train.n_pos == test.n_pos
        assert test.tokens[0, 0] == smollm2.tokenizer.bos_token_id
        gaps = logit_diff(last_logits(smollm2, test.tokens), test.correct, test.wrong)
        assert gaps.std() > 0.1
        lengths.append(test.n_pos)
    # Claim AS-9 needs another CCC template as long as the first, whatever the tokenizer.
    assert name != "CCC" or lengths[0] == lengths[2] == lengths[3]


def test_scalars_swap_the_answers_of_one_prompt(smollm2):
    prompt = make_task(smollm2, "IOI").train.at([0])
    scalars = ActivScalar(Points.of(smollm2, prompt.n_pos, sites=["resid_post"]))
    assert evaluate(smollm2, scalars, prompt).E0 < -1
    objective = Objective(margin=1.0, lambda_f=1.0)
    fit(smollm2, scalars, prompt, objective, learning_rate=3e-3, epochs=8)
    assert evaluate(smollm2, scalars, prompt).E0 == 0
