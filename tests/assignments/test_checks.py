"""The course's checks: what they say, and that they restore models."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache, partial, wraps
from inspect import unwrap
from types import FunctionType

import pytest
import torch

from assignments.checks import near, own_work, shaped, untouched
from helpers.activation_scaling import objective
from helpers.activation_scaling.objective import effectiveness as renamed

pytestmark = pytest.mark.unit
TOKENS = torch.tensor([[0, 1, 2]])
SITE = "blocks.0.hook_mlp_out"


def zero(h, hook):
    return h * 0


@pytest.mark.parametrize(
    "value, shape, message",
    [
        (torch.zeros(12, 768), (768,), r"gap: shape \(12, 768\), expected \(768,\)"),
        ([1.0], (1,), "expected a torch.Tensor, got list"),
        (torch.tensor([float("nan")]), (1,), "not finite"),
    ],
)
def test_a_wrong_shape_is_named(value, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        shaped(value, shape, "gap")
    assert not shaped(torch.ones(2, requires_grad=True), (2,), "gap").requires_grad


@pytest.mark.parametrize(
    "value, expected, message",
    [
        (torch.tensor([1.0]), [-1.0], r"the sign \(largest difference 2\)"),
        (1.0, [1.0, 1.0], r"expected \(2,\)"),
        (float("nan"), 0.0, "the sign"),
        (None, 0.0, "no number: NoneType"),
        ("1.0", 1.0, "no number: str"),
    ],
)
def test_a_wrong_value_gets_its_message_and_how_far_it_is_off(value, expected, message) -> None:
    near([1.0, 2.0], torch.tensor([1.0, 2.0]), "fine")
    with pytest.raises(AssertionError, match=message):
        near(value, expected, "the sign")


def test_a_hook_that_is_left_on_is_named_and_taken_off(tiny) -> None:
    before = tiny(TOKENS)
    with pytest.raises(AssertionError, match="a hook was left on"), untouched(tiny):
        tiny.add_hook(SITE, zero)
    assert torch.equal(tiny(TOKENS), before)
    with untouched(tiny), tiny.hooks(fwd_hooks=[(SITE, zero)]):
        assert not torch.equal(tiny(TOKENS), before)


def test_changed_weights_are_named_and_restored(tiny) -> None:
    before = tiny(TOKENS)
    with pytest.raises(AssertionError, match="weights were changed"), untouched(tiny):
        next(tiny.original_model.parameters()).data.mul_(1.01)
    assert torch.equal(tiny(TOKENS), before)


def test_faults_of_earlier_cells_are_not_held_against_the_next(tiny) -> None:
    with untouched(tiny):
        pass
    tiny.add_hook(SITE, zero)
    with untouched(tiny):
        pass
    with pytest.raises(NotImplementedError), untouched(tiny):
        tiny.add_hook(SITE, zero)
        raise NotImplementedError  # and this is the error that counts


def helper_of_mine(*logits):
    return renamed(*logits)


class Callable:
    def __call__(self, *logits):
        return renamed(*logits)


@wraps(helper_of_mine)
def wrapped(*logits):
    return helper_of_mine(*logits)


def imports_inside(*logits):
    from helpers.activation_scaling.objective import effectiveness

    return effectiveness(*logits)


def loaded_again():
    """The book's module, as one of one's own."""
    spec = importlib.util.spec_from_file_location("mine", objective.__file__)
    module = sys.modules["mine"] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    return sys.modules.pop("mine")


inner = unwrap(renamed)  # behind the check of its arguments
copied = FunctionType(inner.__code__, inner.__globals__, "mine")
again = loaded_again()


class Box:
    def __init__(self, content) -> None:
        self.content = content


Box.__module__ = "__main__"  # as a notebook's class
box, listed, named = Box({"mine": copied}), [None, (copied,)], {"mine": renamed}


def closure(function):
    return lambda *logits: function(*logits)


@pytest.mark.parametrize(
    "answer",
    [
        renamed,
        lambda *x: renamed(*x),
        lambda *x: helper_of_mine(*x),
        lambda *x: [renamed(*x) for _ in range(2)],
        lambda *x: objective.effectiveness(*x),
        cache(helper_of_mine),
        partial(renamed, None),
        partial(helper_of_mine, None),
        wrapped,
        Callable(),
        Callable().__call__,
        imports_inside,
        closure(renamed),
        lambda *x: copied(*x),
        lambda *x: again.effectiveness(*x),
        lambda *x: box.content["mine"](*x),
        lambda *x: listed[1][0](*x),
        lambda *x: named["mine"](*x),
    ],
)
def test_a_helper_that_is_called_is_found_under_any_name(answer) -> None:
    with pytest.raises(AssertionError, match="effectiveness"):
        own_work(answer, "effectiveness")


def test_a_function_of_one_s_own_may_have_the_name_of_a_helper() -> None:
    def effectiveness(*logits):
        return sum(logits)

    def answer(logits):
        faithfulness = effectiveness(logits)
        return faithfulness

    for function in (answer, effectiveness, cache(answer), lambda logits: logits.mean()):
        own_work(function, "effectiveness", "faithfulness")
