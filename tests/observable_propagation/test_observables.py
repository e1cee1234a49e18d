"""Observables: what they read, how they show themselves, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.observables import Observable

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 15).view(2, 7)


def test_the_vector_reads_off_the_final_norm_what_the_observable_reads_off_the_logits(tiny) -> None:
    n = Observable.of(tiny, {"w3": 1, "w5": -2.5, "w8": 0.5, "w9": 0})
    kept, logits = read_activations(tiny, TOKENS, ["ln_final.hook_out"])
    from_residual = kept["ln_final.hook_out"][:, -1] @ n.vector(tiny) + n.bias(tiny)
    torch.testing.assert_close(from_residual, n.measure(logits))
    expected = logits[:, 3] - 2.5 * logits[:, 5] + 0.5 * logits[:, 8]
    torch.testing.assert_close(n.measure(logits), expected)
    assert n.measure(logits.view(1, 2, 1, -1)).shape == (1, 2, 1)
    other = Observable.of(tiny, {"w3": 1, "w5": -2.5, "w9": 0.5})
    assert not torch.allclose(from_residual, other.measure(logits))


def test_it_shows_itself_in_one_order_with_spaces_visible(tiny) -> None:
    one = Observable.of(tiny, {" w5": -1, " w3": 1, " w7": 0.5})
    other = Observable.of(tiny, {" w7": 0.5, " w3": 1, " w5": -1})
    assert str(one) == str(other) == "␣w3 + 0.5·␣w7 − ␣w5" and one == other
    assert str(Observable.of(tiny, {"w3": -1})) == "−w3"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"w3 w4": 1}, "one token is needed"),
        ({"": 1}, "one token is needed"),
        ({"w3": float("nan")}, "finite"),
        ({"w3": float("inf")}, "finite"),
        ({"w3": 0}, "every weight is 0"),
        ({}, "every weight is 0"),
    ],
)
def test_a_sum_that_cannot_be_measured_is_refused(tiny, weights, message) -> None:
    with pytest.raises(ValueError, match=message):
        Observable.of(tiny, weights)


def test_an_observable_of_another_model_is_refused(tiny) -> None:
    foreign = dataclasses.replace(Observable.of(tiny, {"w3": 1}), model_name="another")
    with pytest.raises(ValueError, match="was made for another"):
        foreign.vector(tiny)


def test_reading_in_batches_is_the_same_leaves_no_hook_and_names_one_that_is_missing(tiny) -> None:
    name = "blocks.1.hook_resid_pre"
    whole, logits = read_activations(tiny, TOKENS, [name])
    parts, logits_of_parts = read_activations(tiny, TOKENS, [name], batch_size=1)
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(logits, logits_of_parts)
    torch.testing.assert_close(logits, last_logits(tiny, TOKENS))
    assert not any(point.fwd_hooks for point in tiny.hook_dict.values())
    with pytest.raises(ValueError, match="no hook 'blocks.9.ln1.hook_in'"):
        read_activations(tiny, TOKENS, ["blocks.9.ln1.hook_in"])
