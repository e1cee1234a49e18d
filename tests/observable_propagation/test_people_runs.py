"""One run of many names gives what a run of some of them gives."""

from __future__ import annotations

import pytest
import torch

from helpers.models.direct import direct_attribution
from helpers.models.formulas import facts
from helpers.models.resume import Run
from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.people_runs import PeopleRun, post_norm_lengths
from helpers.observable_propagation.pull_back import NormWeights
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


def test_lengths_behind_attention_are_means_over_rows_and_runs(tiny, tokenizer) -> None:
    model = family("Gemma 3", tokenizer)
    tokens = [NamePrompts.of(model, text, PEOPLE).tokens for text in (TEMPLATE, "w7 {name} w4")]
    runs, rows, expected = [Run.of(model, each) for each in tokens], [0, 3], []
    for each in tokens:
        kept, _ = read_activations(model, each, ["blocks.1.ln1_post.hook_in"])
        expected.append(kept["blocks.1.ln1_post.hook_in"][rows, -1].norm(dim=-1).mean())
    found = post_norm_lengths(model, runs, rows)
    assert list(found) == ["blocks.0.ln1_post", "blocks.1.ln1_post"]
    assert found["blocks.1.ln1_post"] == pytest.approx(float(sum(expected) / 2))
    assert post_norm_lengths(tiny, [Run.of(tiny, tokens[0])], rows) == {}


def test_with_them_a_feature_vector_has_the_length_of_the_head_s_own_path(tokenizer) -> None:
    """On one prompt: score · x · y, summed over tokens, is what direct attribution has."""
    model = family("Gemma 3", tokenizer)
    n = Observable.of(model, {"w3": 1, "w5": -1})
    tokens = NamePrompts.of(model, TEMPLATE, PEOPLE[:1]).tokens
    run, own = Run.of(model, tokens), direct_attribution(model, tokens, n.vector(model)).heads[0]
    lengths = post_norm_lengths(model, [run], [0])
    final = {"ln_final": run.ends[0].norm().item()}
    names = [f"blocks.{layer}.{hook}" for layer in (0, 1) for hook in HOOKS]
    x0, scores0, x1, scores1 = read_activations(model, tokens, names)[0].values()
    scores = torch.stack([scores0, scores1])[:, 0, :, -1]  # [layer head source]
    for norms, right in ((final | lengths, True), (final, False)):
        y = head_features(model, n.vector(model), norms=NormWeights(norms), own_norm=False)
        read = torch.einsum("lhm,lsm->lhs", y, torch.cat([x0, x1]))
        assert torch.allclose(scores * read, own, rtol=1e-3, atol=1e-6) == right


HOOKS = ("ln1.hook_out", "attn.hook_pattern")
