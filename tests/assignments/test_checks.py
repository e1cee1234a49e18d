"""The course's checks: what they say, and that they restore models."""

from __future__ import annotations

import pytest
import torch

from assignments.checks import near, own_work, shaped, untouched
from helpers.activation_scaling.objective import effectiveness as renamed

pytestmark = pytest.mark.unit


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(AssertionError, match=r"gap: shape \(12, 768\), expected \(768,\)"):
        shaped(torch.zeros(12, 768), (768,), "gap")
    with pytest.raises(AssertionError, match="got list, expected a torch.Tensor"):
        shaped([1.0], (1,), "gap")
    with pytest.raises(AssertionError, match="not finite"):
        shaped(torch.tensor([float("nan")]), (1,), "gap")
    assert not shaped(torch.ones(2, requires_grad=True), (2,), "gap").requires_grad


def test_a_wrong_value_gets_its_message_and_how_far_it_is_off() -> None:
    near([1.0, 2.0], torch.tensor([1.0, 2.0]), "fine")
    with pytest.raises(AssertionError, match=r"the sign \(largest difference 2\)"):
        near(torch.tensor([1.0]), [-1.0], "the sign")
    with pytest.raises(AssertionError, match=r"expected \(2,\)"):
        near(1.0, [1.0, 1.0], "one too few")
    with pytest.raises(AssertionError):
        near(float("nan"), 0.0, "no number is near what is not a number")


def test_a_hook_that_is_left_on_is_named_and_taken_off(tiny) -> None:
    tokens = torch.tensor([[0, 1, 2]])
    before = tiny(tokens)
    with pytest.raises(AssertionError, match="a hook was left on"), untouched(tiny):
        tiny.add_hook("blocks.0.hook_mlp_out", lambda h, hook: h * 0)
    assert torch.equal(tiny(tokens), before)
    with untouched(tiny), tiny.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", lambda h, hook: h * 0)]):
        assert not torch.equal(tiny(tokens), before)


def test_changed_weights_are_named_and_put_back(tiny) -> None:
    tokens = torch.tensor([[0, 1, 2]])
    before = tiny(tokens)
    with pytest.raises(AssertionError, match="weights were changed"), untouched(tiny):
        next(tiny.original_model.parameters()).data.mul_(1.01)
    assert torch.equal(tiny(tokens), before)


def test_what_was_left_behind_earlier_is_not_held_against_the_next(tiny) -> None:
    with untouched(tiny):
        pass
    tiny.add_hook("blocks.0.hook_mlp_out", lambda h, hook: h * 0)
    with untouched(tiny):
        pass


def test_an_error_in_the_block_is_what_is_raised(tiny) -> None:
    with pytest.raises(NotImplementedError), untouched(tiny):
        tiny.add_hook("blocks.0.hook_mlp_out", lambda h, hook: h * 0)
        raise NotImplementedError


def helper_of_mine(*logits):
    return renamed(*logits)


def test_a_helper_that_is_called_is_found_under_any_name() -> None:
    own_work(lambda logits: logits.mean(), "effectiveness")
    for answer in (
        lambda *x: renamed(*x),
        lambda *x: helper_of_mine(*x),
        lambda *x: [renamed(*x) for _ in range(2)],
    ):
        with pytest.raises(AssertionError, match="effectiveness"):
            own_work(answer, "effectiveness")
