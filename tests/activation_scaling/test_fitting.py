"""Fitting: it swaps answers, is reproducible, refuses nonsense and NaN, leaves the model alone."""

from __future__ import annotations

import pytest
import torch

from helpers.activation_scaling import ascent
from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.activation_scaling.objective import Objective, evaluate
from helpers.activation_scaling.points import Points
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def prompts(tiny) -> Prompts:
    return Prompts.of(
        tiny, ["w1 w2 w3", "w4 w5 w6", "w7 w8 w9"], ["w10", "w11", "w12"], ["w13", "w14", "w15"]
    )


def make(tiny, prompts, kind=SteerVec):
    return kind(Points.of(tiny, prompts.n_pos), dtype=torch.float64)


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_a_fit_improves_effectiveness_and_vectors_swap_every_answer(tiny, prompts, kind):
    before = evaluate(tiny, make(tiny, prompts, kind), prompts)
    result = fit(
        tiny,
        make(tiny, prompts, kind),
        prompts,
        Objective(margin=0.1),
        learning_rate=0.05,
        epochs=60,
    )
    after = evaluate(tiny, result.intervention, prompts)
    assert before.E0 < after.E0
    assert len(result.history) == 60
    assert result.history[-1]["psi"] > result.history[0]["psi"]
    if kind is SteerVec:
        assert after.E0 == 0 and after.swapped == 1


def test_the_first_step_is_adam_on_the_gradient_of_equation_9(tiny, prompts):
    """One step from the same start, with the loss written out, a prompt and a β at a time."""
    objective = Objective(margin=1.0, lambda_f=0.5, lambda_m=0.1)
    ours = fit(
        tiny, make(tiny, prompts), prompts, objective, learning_rate=0.01, epochs=1, seed=4
    ).intervention
    plain = make(tiny, prompts)
    plain.reset(seed=4)
    loss = 0.1 * plain.vec().abs().sum()
    for n in range(len(prompts)):
        tokens, right, wrong = prompts.tokens[n : n + 1], prompts.correct[n], prompts.wrong[n]
        base = tiny(tokens)[0, -1].log_softmax(0)
        for sign in (1.0, -1.0):
            with plain.applied(tiny, sign):
                logits = tiny(tokens)[0, -1]
            log_p = logits.log_softmax(0)
            loss = loss + torch.relu(1.0 - sign * (logits[right] - logits[wrong])) / len(prompts)
            loss = loss + 0.5 * (log_p.exp() * (log_p - base)).sum() / len(prompts)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    loss.backward()
    optimizer.step()
    assert torch.allclose(
        ours.vec(), plain.vec(), atol=1e-4
    )  # 32-bit parts of GPT-Neo and Llama round a few signs' size
    assert ours.vec().abs().median() > 5e-3, "Adam's first step is about the learning rate"


def test_the_same_seed_gives_the_same_fit_and_another_seed_another(tiny, prompts):
    runs = [
        fit(
            tiny,
            make(tiny, prompts),
            prompts,
            Objective(margin=1),
            learning_rate=0.01,
            epochs=3,
            batch_size=2,
            seed=seed,
        )
        for seed in (0, 0, 1)
    ]
    first, again, other = (run.intervention.vec() for run in runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(runs[0].history) == 3 * 2  # two batches an epoch


def test_fitting_leaves_no_hook_and_no_gradient_on_the_model(tiny, prompts):
    base = last_logits(tiny, prompts.tokens)
    fit(tiny, make(tiny, prompts), prompts, Objective(margin=1), learning_rate=0.01, epochs=2)
    assert torch.equal(last_logits(tiny, prompts.tokens), base)
    assert all(
        weight.grad is None and not weight.requires_grad
        for weight in tiny.original_model.parameters()
    )


def test_a_penalty_on_size_makes_scalars_smaller(tiny, prompts):
    sizes = [
        fit(
            tiny,
            make(tiny, prompts),
            prompts,
            Objective(margin=1, lambda_m=weight),
            learning_rate=0.01,
            epochs=20,
        )
        .intervention.vec()
        .abs()
        .sum()
        for weight in (0.0, 10.0)
    ]
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize(
    "bad", [{"learning_rate": 0.0}, {"learning_rate": -1.0}, {"epochs": 0}, {"batch_size": -1}]
)
def test_nonsense_options_are_refused_before_any_work(tiny, prompts, bad, monkeypatch):
    monkeypatch.setattr(ascent, "last_logits", None)  # any run of the model would fail
    with pytest.raises(ValueError, match=next(iter(bad))):
        fit(tiny, make(tiny, prompts), prompts, Objective(), **{"learning_rate": 0.01, **bad})


def test_prompts_of_another_length_are_refused(tiny, prompts):
    with pytest.raises(ValueError, match="tied to prompts of 9 tokens"):
        fit(
            tiny,
            SteerVec(Points.of(tiny, 9), dtype=torch.float64),
            prompts,
            Objective(),
            learning_rate=0.01,
        )


class Poisoned(SteerVec):
    """Vectors that turn into NaN after some steps."""

    edits = 0

    def edit(self, model, h, site, layer, beta):
        self.edits += 1
        return super().edit(model, h, site, layer, beta) * (
            float("nan") if self.edits > 12 else 1.0
        )


def test_an_objective_that_is_not_finite_stops_the_fit_and_keeps_the_last_finite_parameters(
    tiny, prompts
):
    intervention = make(tiny, prompts, Poisoned)
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        fit(tiny, intervention, prompts, Objective(margin=1), learning_rate=0.01, epochs=9)
    assert intervention.vec().isfinite().all()
    assert intervention.vec().abs().max() > 5e-3, (
        "steps before the first NaN should have been taken"
    )
