"""Eq. 6 to 9 against a plain restatement, their limits, and the errors."""

from __future__ import annotations

import math

import pytest
import torch

from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.activation_scaling.objective import (
    NEGLIGIBLE,
    Evaluation,
    Objective,
    count_places,
    effectiveness,
    faithfulness,
    logit_diff,
    minimality,
    prune,
)
from helpers.activation_scaling.points import Points

pytestmark = pytest.mark.unit

GENERATOR = torch.Generator().manual_seed(0)
PLUS, MINUS, BASE = torch.randn(3, 4, 11, generator=GENERATOR, dtype=torch.float64) * 3
CORRECT, WRONG = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7, 8])


@pytest.mark.parametrize("margin", [0.0, 1.0, 10.0])
def test_effectiveness_is_equation_6_term_by_term(margin):
    total = 0.0
    for n in range(4):
        plus_c, plus_w = PLUS[n, CORRECT[n]].item(), PLUS[n, WRONG[n]].item()
        minus_c, minus_w = MINUS[n, CORRECT[n]].item(), MINUS[n, WRONG[n]].item()
        total += max(0.0, plus_w - plus_c + margin) + max(0.0, minus_c - minus_w + margin)
    assert effectiveness(PLUS, MINUS, CORRECT, WRONG, margin).item() == pytest.approx(
        -total / 4, abs=1e-12
    )


def test_faithfulness_is_equation_7_term_by_term_with_the_steered_distribution_first():
    total = 0.0
    for n in range(4):
        q = BASE[n].softmax(0)
        for steered in (PLUS[n], MINUS[n]):
            p = steered.softmax(0)
            total += sum(p[i].item() * math.log(p[i].item() / q[i].item()) for i in range(11))
    assert faithfulness(PLUS, MINUS, BASE).item() == pytest.approx(-total / 4, abs=1e-12)
    reversed_arguments = faithfulness(BASE, BASE, PLUS).item()
    assert faithfulness(PLUS, PLUS, BASE).item() != pytest.approx(reversed_arguments, abs=1e-3)


def test_swapped_answers_are_fully_effective_and_an_untouched_model_fully_faithful():
    plus, minus = torch.zeros(2, 4, 11)
    plus[torch.arange(4), CORRECT] = 2.0
    minus[torch.arange(4), WRONG] = 2.0
    assert effectiveness(plus, minus, CORRECT, WRONG, margin=2.0) == 0
    assert (
        effectiveness(plus, minus, CORRECT, WRONG, margin=2.5) == -1
    )  # half a nat short at either sign
    assert effectiveness(minus, plus, CORRECT, WRONG) == -4
    assert faithfulness(BASE, BASE, BASE).item() == pytest.approx(0, abs=1e-15)


def test_a_prompt_is_swapped_where_both_signs_have_the_answer_that_they_should():
    plus, minus = torch.zeros(2, 4, 11)
    plus[torch.arange(4), torch.where(torch.tensor([True, True, False, False]), CORRECT, WRONG)] = 2
    minus[
        torch.arange(4), torch.where(torch.tensor([True, False, True, False]), WRONG, CORRECT)
    ] = 2
    assert Evaluation.of(torch.zeros(3), plus, minus, BASE, CORRECT, WRONG).swapped == 0.25


def test_minimality_counts_at_the_threshold_and_sums_magnitudes():
    theta = torch.tensor([0.0, 0.009, -NEGLIGIBLE, NEGLIGIBLE, -3.0], dtype=torch.float64)
    assert minimality(theta, 0) == -3
    assert minimality(theta, 1).item() == pytest.approx(-(0.009 + 0.02 + 3.0))
    with pytest.raises(ValueError, match="p = 2 must be 0 to 1"):
        minimality(theta, 2)


def test_psi_is_the_weighted_sum():
    theta = torch.tensor([0.5, -0.25])
    terms = Objective(margin=1.0, lambda_f=2.0, lambda_m=3.0).terms(
        theta, PLUS, MINUS, BASE, CORRECT, WRONG
    )
    assert terms["E_m"] == effectiveness(PLUS, MINUS, CORRECT, WRONG, 1.0)
    assert terms["psi"].item() == pytest.approx(
        (terms["E_m"] + 2 * terms["F"] + 3 * terms["M_1"]).item()
    )


def test_logit_diff_is_correct_minus_wrong_with_or_without_an_axis_of_betas():
    both = logit_diff(torch.stack([PLUS, MINUS]), CORRECT, WRONG)
    assert torch.equal(both[1], logit_diff(MINUS, CORRECT, WRONG))
    assert both[0, 2] == PLUS[2, 3] - PLUS[2, 7]


@pytest.mark.parametrize("kind", [ActivScalar, SteerVec])
def test_what_is_pruned_is_what_m_0_does_not_count_and_a_vector_is_one_place(tiny, kind):
    intervention = kind(Points.of(tiny, 5))
    first = intervention.theta["attn_out"].data
    first[0, 1] = NEGLIGIBLE  # at the limit counts
    first[1, 2] = -NEGLIGIBLE * 0.99
    intervention.theta["mlp_out"].data[1, 4] = 3.0
    before = intervention.vec().detach().clone()
    entries = 1 if kind is ActivScalar else tiny.cfg.d_model
    assert count_places(intervention) == 2
    prune(intervention)
    after = intervention.vec().detach()
    assert minimality(after, 0) == minimality(before, 0) == -2 * entries
    assert (after != before).sum() == entries, "the negligible ones, and no others"
    assert torch.equal(after[after != 0], before[before.abs() >= NEGLIGIBLE])
    assert count_places(intervention) == 2
