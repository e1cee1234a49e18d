"""One run of many names gives what a run of some of them gives."""

from __future__ import annotations

import pytest
import torch

from helpers.models.formulas import facts
from helpers.models.run import last_logits
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.people_runs import PeopleRun
from helpers.prompts.people import NamePrompts
from tests.models.families import family

pytestmark = pytest.mark.unit

TEMPLATE = "w1 {name} w2 w3"
PEOPLE = [("w11", "F"), ("w12", "M"), ("w13", "F"), ("w14", "F"), ("w15", "M")]
SOME = [PEOPLE[3], PEOPLE[0], PEOPLE[4]]


@pytest.fixture
def n(tiny) -> Observable:
    return Observable.of(tiny, {"w3": 1, "w5": -1})


def test_values_are_the_observable_s(tiny, n) -> None:
    found = PeopleRun.of(tiny, n, TEMPLATE, PEOPLE)
    with torch.no_grad():
        logits = last_logits(tiny, NamePrompts.of(tiny, TEMPLATE, SOME).tokens)
    assert torch.allclose(found.values[found.rows(SOME)], n.measure(logits), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="not in the run"):
        found.rows([("w20", "F")])


def test_effects_are_those_of_path_patching(tiny, n) -> None:
    found = PeopleRun.of(tiny, n, TEMPLATE, PEOPLE).patching(tiny, PEOPLE)
    pairs = NamePrompts.of(tiny, TEMPLATE, PEOPLE).pairs()
    expected = path_patching(tiny, *pairs, n).cpu()
    assert found.shape == (2, tiny.cfg.n_layers, tiny.cfg.n_heads)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6) and expected.abs().max() > 1e-4


def test_pairs_are_in_the_order_of_the_people(tiny, n) -> None:
    run = PeopleRun.of(tiny, n, TEMPLATE, PEOPLE)
    (found,) = run.patching(tiny, SOME)
    (expected,) = run.patching(tiny, [("w14", "F"), ("w15", "M")])
    assert torch.equal(found, expected)


# Multipliers on the residual stream and on logits, caps on logits, norms after attention.
@pytest.mark.parametrize("name", ["Gemma 2", "Gemma 3", "Granite", "Cohere", "OLMo 2", "GPT-J"])
def test_other_families_give_the_same_as_their_own_runs(name, tokenizer) -> None:
    model = family(name, tokenizer)
    n = Observable.of(model, {"w3": 1, "w5": -1})
    run = PeopleRun.of(model, n, TEMPLATE, PEOPLE)
    prompts = NamePrompts.of(model, TEMPLATE, PEOPLE)
    with torch.no_grad():
        measured = n.measure(last_logits(model, prompts.tokens))
    torch.testing.assert_close(run.values, measured, rtol=1e-6, atol=1e-8)
    expected = path_patching(model, *prompts.pairs(), n).cpu()
    torch.testing.assert_close(run.patching(model, PEOPLE), expected, rtol=1e-6, atol=1e-8)
    assert expected.abs().max() > 1e-6


def test_a_model_whose_heads_are_not_as_computed_is_refused(tiny, n, monkeypatch) -> None:
    run = PeopleRun.of(tiny, n, TEMPLATE, PEOPLE)
    monkeypatch.setitem(facts(tiny).faults, "attention", 0.5)
    with pytest.raises(ValueError, match="attention"):
        run.patching(tiny, PEOPLE)
