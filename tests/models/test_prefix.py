"""Runs that begin after a prefix: the same logits and the same fit as whole prompts give, with less run."""

from __future__ import annotations

import pytest
import torch

from helpers.activation_scaling.dynamic import DynScalar
from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models import prefix
from helpers.models.prefix import Prefix, Runs
from helpers.models.run import HOOKS, last_logits
from helpers.prompts.prompts import Prompts, mixed

pytestmark = pytest.mark.unit
IN_32_BITS = (
    "EleutherAI/gpt-neo-1.3B",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
)  # parts of them, whatever the weights are
SIGNS = torch.tensor([1.0, -1.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def prompts(tiny) -> Prompts:
    """Three prompts of seven tokens; the first three are the same."""
    texts = [f"w1 w2 {rest}" for rest in ("w4 w5 w6 w7", "w8 w9 w20 w21", "w30 w31 w32 w33")]
    return Prompts.of(tiny, texts, ["w10", "w11", "w12"], ["w13", "w14", "w15"])


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch):
    monkeypatch.setattr(prefix, "WORTH", 1)


def tolerance(model) -> float:
    return 2e-6 if model.cfg.model_name in IN_32_BITS else 1e-12


def whole(model, tokens, intervention):
    """The plain way: every prompt from its first token on, once for each sign."""
    both = []
    for sign in (1.0, -1.0):
        with intervention.applied(model, sign):
            both.append(model.original_model(input_ids=tokens, use_cache=False).logits[:, -1])
    return torch.stack(both)


def in_parts(model, runs, intervention, rows):
    def steered(n, at):
        return intervention.applied(model, SIGNS.repeat_interleave(n), at=at)

    return runs.logits(model, steered, 2, rows)


def positions_seen(model, seen):
    return model.hooks(
        fwd_hooks=[("blocks.0.hook_mlp_out", lambda h, hook: seen.append(tuple(h.shape[:2])))]
    )


@pytest.mark.parametrize("length", [1, 3, 6])
def test_logits_after_a_prefix_are_those_of_the_whole_prompt(tiny, prompts, length):
    start = Prefix.run(tiny, prompts.tokens[:, :length])
    rest = start.last_logits(tiny, prompts.tokens[:, length:])
    assert torch.allclose(rest, last_logits(tiny, prompts.tokens), atol=tolerance(tiny))
    other = start.rows(torch.tensor([1, 2, 0])).last_logits(tiny, prompts.tokens[:, length:])
    assert torch.allclose(other, rest, atol=tolerance(tiny)) == (length <= 3), (
        "a prefix of another prompt gives other logits"
    )
    assert torch.equal(start.last_logits(tiny, prompts.tokens[:, length:]), rest), (
        "a prefix is as it was after a run"
    )


@pytest.mark.parametrize("site", HOOKS)
@pytest.mark.parametrize("positions", [None, [-1], [2, 5]])
@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_logits_and_gradients_in_parts_equal_those_of_whole_prompts(
    tiny, prompts, kind, site, positions
):
    intervention = kind(
        Points.of(tiny, prompts.n_pos, sites=[site], positions=positions), dtype=torch.float64
    )
    intervention.reset(0, 0.3)
    rows = torch.tensor([2, 0])
    runs = Runs.of(tiny, prompts.tokens, intervention.first())
    assert (runs.fixed.length if runs.fixed else 0) == intervention.first() and runs.shared == 3
    weight = torch.randn(101, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for logits in (
        whole(tiny, prompts.tokens[rows], intervention),
        in_parts(tiny, runs, intervention, rows),
    ):
        (gradient,) = torch.autograd.grad((logits @ weight).sum(), intervention.theta[site])
        results.append((logits.detach(), gradient))
    (logits, gradient), (ours, our_gradient) = results
    assert torch.allclose(ours, logits, atol=tolerance(tiny))
    assert torch.allclose(
        our_gradient,
        gradient,
        rtol=1e-3 if tolerance(tiny) > 1e-6 else 1e-9,
        atol=5 * tolerance(tiny),
    )
    assert gradient.abs().max() > 20 * tolerance(tiny), "nothing would agree with anything"


def test_the_prefix_is_not_run_again(tiny, prompts):
    seen = []
    last = ActivScalar(Points.of(tiny, prompts.n_pos, positions=[-1]), dtype=torch.float64)
    everywhere = ActivScalar(Points.of(tiny, prompts.n_pos), dtype=torch.float64)
    for intervention, expected in ((last, [(6, 1)]), (everywhere, [(2, 3), (6, 4)])):
        runs = Runs.of(tiny, prompts.tokens, intervention.first())
        with positions_seen(tiny, seen):
            in_parts(tiny, runs, intervention, torch.arange(3))
        assert seen == expected
        seen.clear()


def test_what_is_not_worth_it_and_what_is_too_large_is_run_whole(tiny, prompts, monkeypatch):
    monkeypatch.setattr(prefix, "WORTH", 10**6)
    monkeypatch.setattr(prefix, "LIMIT", 10)
    last = ActivScalar(Points.of(tiny, prompts.n_pos, positions=[-1]), dtype=torch.float64)
    runs, seen = Runs.of(tiny, prompts.tokens, last.first()), []
    with positions_seen(tiny, seen):
        logits = in_parts(tiny, runs, last, torch.arange(3))
    assert seen == [(6, 7)]
    assert torch.allclose(logits, whole(tiny, prompts.tokens, last), atol=tolerance(tiny))


def test_prompts_of_several_lengths_and_of_one_text_are_run_as_they_are(tiny, prompts):
    padded = mixed(tiny, ["w1 w2", "w1 w2 w3"], ["w4", "w5"], ["w6", "w7"])
    alone = prompts.at([0])
    for data in (padded, alone):
        scalars = DynScalar(Points.of(tiny, None), dtype=torch.float64)
        scalars.reset(0, 0.3)
        runs = Runs.of(tiny, data.tokens, scalars.first())
        ours = in_parts(tiny, runs, scalars, torch.arange(len(data)))
        for row in range(len(data)):
            tokens = data.tokens[row][data.tokens[row] >= 0][None]
            assert torch.allclose(
                ours[:, row], whole(tiny, tokens, scalars)[:, 0], atol=tolerance(tiny)
            )


@pytest.mark.parametrize("positions", [None, [-1]])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_fit_is_the_same_as_with_whole_prompts(tiny, prompts, positions, batch_size, monkeypatch):
    def fitted():
        intervention = SteerVec(
            Points.of(tiny, prompts.n_pos, positions=positions), dtype=torch.float64
        )
        how = {"learning_rate": 1e-2, "epochs": 3, "batch_size": batch_size, "seed": 5}
        return fit(
            tiny, intervention, prompts, Objective(margin=1, lambda_f=1, lambda_m=0.1), **how
        )

    ours = fitted()
    monkeypatch.setattr(prefix, "WORTH", 10**6)
    monkeypatch.setattr(prefix, "LIMIT", 0)
    plain = fitted()
    # Adam divides by the gradient's size: where that is mostly 32-bit rounding, so is the step.
    close = (ours.intervention.vec() - plain.intervention.vec()).abs() < (
        1e-4 if tolerance(tiny) > 1e-6 else 1e-9
    )
    assert close.float().mean() > (0.99 if tolerance(tiny) > 1e-6 else 0.9999)
    assert ours.history[-1]["psi"] == pytest.approx(plain.history[-1]["psi"], abs=1e-5)
    assert ours.intervention.vec().abs().max() > 1e-2
