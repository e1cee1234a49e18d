"""Runs after a prefix: the logits and fits of whole prompts, with fewer positions run."""

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
from helpers.prompts.prompts import Prompts
from tests.conftest import mixed, rounds

pytestmark = pytest.mark.unit
SIGNS = torch.tensor([1.0, -1.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def prompts(tiny) -> Prompts:
    """Three prompts of seven tokens; the first three are the same, and one after they differ."""
    texts = [f"w1 w2 {rest}" for rest in ("w4 w5 w6 w7", "w8 w5 w20 w21", "w30 w5 w32 w33")]
    return Prompts.of(tiny, texts, ["w10", "w11", "w12"], ["w13", "w14", "w15"])


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch):
    monkeypatch.setattr(prefix, "WORTH", 1)


def never_worth_it(monkeypatch):
    monkeypatch.setattr(prefix, "WORTH", 10**6)
    monkeypatch.setattr(prefix, "LIMIT", 0)


def close(model) -> dict[str, float]:
    return {"rtol": 1e-5, "atol": 2e-6 if rounds(model) else 1e-12}


def gradients_close(model) -> dict[str, float]:
    return {"rtol": 1e-3, "atol": 1e-5} if rounds(model) else {"rtol": 1e-9, "atol": 5e-12}


def whole(model, tokens, intervention):
    """Every prompt from its first token on, once for each sign."""
    both = []
    for sign in SIGNS.tolist():
        with intervention.applied(model, sign):
            both.append(model.original_model(input_ids=tokens, use_cache=False).logits[:, -1])
    return torch.stack(both)


def in_parts(model, runs, intervention, rows):
    def steered(n, at):
        return intervention.applied(model, SIGNS.repeat_interleave(n), at=at)

    return runs.logits(model, steered, rows.expand(2, -1))


@pytest.mark.parametrize("length", [1, 3, 6])
def test_logits_after_a_prefix_are_those_of_the_whole_prompt(tiny, prompts, length):
    start, tokens = Prefix.run(tiny, prompts.tokens[:, :length]), prompts.tokens[:, length:]
    rest = start.last_logits(tiny, tokens)
    torch.testing.assert_close(rest, last_logits(tiny, prompts.tokens), **close(tiny))
    # The prefix of another prompt gives other logits; and a run leaves the prefix as it was.
    other = start.rows(torch.tensor([1, 2, 0])).last_logits(tiny, tokens)
    assert torch.allclose(other, rest, **close(tiny)) == (length <= 3)
    assert torch.equal(start.last_logits(tiny, tokens), rest)


@pytest.mark.parametrize("site", HOOKS)
@pytest.mark.parametrize("positions", [None, [-1], [2, 5]])
@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
@pytest.mark.slow
def test_logits_and_gradients_in_parts_equal_those_of_whole_prompts(
    tiny, prompts, kind, site, positions
):
    points = Points.of(tiny, prompts.n_pos, sites=[site], positions=positions)
    intervention = kind(points, dtype=torch.float64)
    intervention.reset(0, 0.3)
    rows, first = torch.tensor([2, 0]), intervention.first()
    runs = Runs.of(tiny, prompts.tokens, first)
    assert (runs.fixed.length if runs.fixed else 0) == first and runs.shared == 3
    # Large, so that even the gradients of 32-bit norms stand out from their rounding.
    weight = 10 * torch.randn(101, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = in_parts(tiny, runs, intervention, rows)
    expected = whole(tiny, prompts.tokens[rows], intervention)
    torch.testing.assert_close(ours, expected, **close(tiny))
    theta = intervention.theta[site]
    (our_gradient,) = torch.autograd.grad((ours @ weight).sum(), theta)
    (gradient,) = torch.autograd.grad((expected @ weight).sum(), theta)
    torch.testing.assert_close(our_gradient, gradient, **gradients_close(tiny))
    assert gradient.abs().max() > 20 * close(tiny)["atol"], "nothing would agree with anything"


def test_only_what_follows_the_prefix_is_run_unless_that_is_not_worth_it(
    tiny, prompts, monkeypatch
):
    last = ActivScalar(Points.of(tiny, prompts.n_pos, positions=[-1]), dtype=torch.float64)
    everywhere = ActivScalar(Points.of(tiny, prompts.n_pos), dtype=torch.float64)

    def shapes(intervention):
        seen = []
        watch = ("blocks.0.hook_mlp_out", lambda h, hook: seen.append(tuple(h.shape[:2])))
        runs = Runs.of(tiny, prompts.tokens, intervention.first())
        with tiny.hooks(fwd_hooks=[watch]):
            in_parts(tiny, runs, intervention, torch.arange(3))
        return seen

    assert shapes(last) == [(6, 1)] and shapes(everywhere) == [(2, 3), (6, 4)]
    # Three tokens, of one prompt in place of three, at two strengths: 12 positions are saved.
    for worth, seen in ((12, [(2, 3), (6, 4)]), (13, [(6, 7)])):
        monkeypatch.setattr(prefix, "WORTH", worth)
        assert shapes(everywhere) == seen
    never_worth_it(monkeypatch)
    assert shapes(last) == [(6, 7)]


def test_prompts_of_several_lengths_are_run_length_by_length_where_that_saves_padding(
    tiny, monkeypatch
):
    texts = ["w1 w2", "w1 w2 w3 w4 w5", "w1 w6", "w1 w2 w7 w8 w9"]
    padded = mixed(tiny, texts, ["w4"] * 4, ["w6"] * 4)
    scalars = DynScalar(Points.of(tiny, None), dtype=torch.float64)
    scalars.reset(0, 0.3)
    runs, rows = Runs.of(tiny, padded.tokens, scalars.first()), torch.tensor([3, 0, 1, 2])

    def check(shapes):
        seen = []
        watch = ("blocks.0.hook_mlp_out", lambda h, hook: seen.append(tuple(h.shape[:2])))
        with tiny.hooks(fwd_hooks=[watch]):
            ours = in_parts(tiny, runs, scalars, rows)
        assert seen == shapes
        for row, tokens in enumerate(padded.tokens[rows]):
            expected = whole(tiny, tokens[tokens >= 0][None], scalars)[:, 0]
            torch.testing.assert_close(ours[:, row], expected, **close(tiny))

    check([(2, 2), (4, 1), (2, 3), (4, 3)])  # of each length: what all begin with, then the rest
    never_worth_it(monkeypatch)
    check([(8, 6)])


@pytest.mark.parametrize("positions", [None, [-1]])
@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.slow
def test_a_fit_is_the_same_as_with_whole_prompts(tiny, prompts, positions, batch_size, monkeypatch):
    def fitted():
        points = Points.of(tiny, prompts.n_pos, positions=positions)
        how = {"learning_rate": 1e-2, "epochs": 3, "batch_size": batch_size, "seed": 5}
        objective = Objective(margin=1, lambda_f=1, lambda_m=0.1)
        return fit(tiny, SteerVec(points, dtype=torch.float64), prompts, objective, **how)

    ours = fitted()
    never_worth_it(monkeypatch)
    plain = fitted()
    # Adam divides by the gradient's size: where that is mostly 32-bit rounding, so is the step.
    difference = (ours.intervention.vec() - plain.intervention.vec()).abs()
    agree = (difference < (1e-4 if rounds(tiny) else 1e-9)).float().mean()
    assert agree > (0.99 if rounds(tiny) else 0.9999)
    assert ours.history[-1]["psi"] == pytest.approx(plain.history[-1]["psi"], abs=1e-5)
    assert ours.intervention.vec().abs().max() > 1e-2


@pytest.mark.parametrize(("length", "error"), [(8, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_no_more_positions_are_taken_than_there_are(tiny, prompts, length, error) -> None:
    whole = Prefix.run(tiny, prompts.tokens)
    assert whole.rows(torch.tensor([1]), 7).length == 7
    with pytest.raises(error, match="length = "):
        whole.rows(torch.tensor([1]), length)
