"""Observables: their checks, their arithmetic, and what they read."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.observables import Observable

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 15).view(2, 7)


def test_the_vector_reads_off_the_final_norm_what_the_observable_reads_off_the_logits(tiny) -> None:
    n = Observable.of(tiny, {"w3": 1, "w5": -2.5, "w8": 0.5})
    kept, logits = read_activations(tiny, TOKENS, ["ln_final.hook_out"])
    from_residual = kept["ln_final.hook_out"][:, -1] @ n.vector(tiny) + n.bias(tiny)
    torch.testing.assert_close(from_residual, n.measure(logits))
    other = Observable.of(tiny, {"w3": 1, "w5": -2.5, "w9": 0.5})
    assert not torch.allclose(from_residual, other.measure(logits))


def test_measuring_a_difference_is_the_difference_of_two_logits(tiny) -> None:
    logits = last_logits(tiny, TOKENS)
    n = Observable.of(tiny, {"w3": 1, "w5": -1})
    torch.testing.assert_close(n.measure(logits), logits[:, 3] - logits[:, 5])
    assert n.measure(logits.view(1, 2, 1, -1)).shape == (1, 2, 1)


def test_observables_add_subtract_and_scale_like_vectors(tiny) -> None:
    she, he = Observable.of(tiny, {"w3": 1}), Observable.of(tiny, {"w5": 1})
    combined = (2 * she - he / 2 + he) * 3
    assert combined == Observable.of(tiny, {"w5": 1.5, "w3": 6})
    assert hash(combined) == hash(Observable.of(tiny, {"w3": 6, "w5": 1.5}))
    assert combined != combined * 1.001
    torch.testing.assert_close(combined.vector(tiny), 6 * she.vector(tiny) + 1.5 * he.vector(tiny))
    with pytest.raises(TypeError, match="added to another observable"):
        she + 3


def test_terms_that_cancel_disappear_and_a_sum_of_nothing_is_refused(tiny) -> None:
    she, he = Observable.of(tiny, {"w3": 1}), Observable.of(tiny, {"w5": 1})
    assert (she + he) - he == she
    with pytest.raises(ValueError, match="nothing is left"):
        she - she
    with pytest.raises(ValueError, match="nothing is left"):
        Observable.of(tiny, {})


def test_it_shows_itself_in_one_order_with_spaces_visible(tiny) -> None:
    one = Observable.of(tiny, {" w5": -1, " w3": 1, " w7": 0.5})
    other = Observable.of(tiny, {" w7": 0.5, " w3": 1, " w5": -1})
    assert str(one) == str(other) == "␣w3 + 0.5·␣w7 − ␣w5"
    assert str(-Observable.of(tiny, {"w3": 1})) == "−w3"
    named = Observable.of(tiny, {" w5": -1, " w3": 1, " w7": 0.5}, "n")
    assert one.name == str(one) and named.name == "n" and named == one


def test_it_cannot_be_changed(tiny) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Observable.of(tiny, {"w3": 1}).label = "other"


@pytest.mark.parametrize("text", ["w3 w4", ""])
def test_a_text_that_is_not_one_token_is_refused(tiny, text: str) -> None:
    with pytest.raises(ValueError, match="one token is needed"):
        Observable.of(tiny, {text: 1})


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(tiny, weight: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Observable.of(tiny, {"w3": weight})
    with pytest.raises(ValueError, match="finite"):
        Observable.of(tiny, {"w3": 1}) * weight


def test_observables_of_another_model_are_refused(tiny) -> None:
    n = Observable.of(tiny, {"w3": 1})
    foreign = dataclasses.replace(n, model_name="another")
    with pytest.raises(ValueError, match="token ids differ"):
        n + foreign
    with pytest.raises(ValueError, match="was made for another"):
        foreign.vector(tiny)


def test_reading_names_a_hook_that_is_not_there(tiny) -> None:
    with pytest.raises(ValueError, match="no hook 'blocks.9.ln1.hook_in'"):
        read_activations(tiny, TOKENS, ["blocks.9.ln1.hook_in"])


def test_reading_in_batches_is_the_same_and_leaves_no_hook(tiny) -> None:
    whole, logits = read_activations(tiny, TOKENS, ["blocks.1.hook_resid_pre"])
    parts, logits_of_parts = read_activations(
        tiny, TOKENS, ["blocks.1.hook_resid_pre"], batch_size=1
    )
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(logits, logits_of_parts)
    assert not any(point.fwd_hooks for point in tiny.hook_dict.values())
