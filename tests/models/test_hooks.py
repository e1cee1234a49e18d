"""Hooks are on for one thread at a time, and off after an interrupt at any line."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier

import pytest
import torch
from transformer_lens import hook_points

from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.points import Points
from helpers.models import hooks, resume
from helpers.models.formulas import check
from helpers.models.hooks import alone, hooked
from helpers.models.run import last_logits
from helpers.observable_propagation.edits import edited
from helpers.observable_propagation.pull_back import mlp_output

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 9).view(2, 4)
NAMES = ["blocks.0.hook_resid_pre", "blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]


def left_on(model) -> set[str]:
    """Hook points with a hook, by TransformerLens' list or by torch's, and blocks replaced."""
    points = model.hook_dict.values()
    found = {point.name for point in points if point.fwd_hooks or point._forward_hooks}
    return found | {str(block) for block in model.blocks if "forward" in block.__dict__}


def three_hooks(model):
    return hooked(model, [(name, lambda value, hook: None) for name in NAMES])


def scaled(model):
    return ActivScalar(Points.of(model, 4), dtype=torch.float64).applied(model, 1.0)


WAYS = {
    "hooked": three_hooks,
    "edited": lambda model: edited(model, 1, -1, lambda x: x + 1),
    "applied": scaled,
    "resumed": lambda model: resume._entered(model, 1, torch.zeros(2, 4, 32).double()),
}
# Where hooks go on and come off: these files, and what context managers do.
WATCHED = {Path(hooks.__file__), Path(resume.__file__), Path(hook_points.__file__)}
WATCHED |= {Path(sys.modules["contextlib"].__file__)}


def interrupted_at(line: int, context, model) -> bool:
    """Whether a context has so many lines in those files; it is interrupted at this one."""
    left = line

    def trace(frame, event, argument):
        nonlocal left
        if event == "call":
            return trace if Path(frame.f_code.co_filename) in WATCHED else None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        with context(model):
            pass
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_an_interrupt_at_any_line_leaves_nothing_on_the_model(tiny, way):
    expected, line = last_logits(tiny, TOKENS), 0
    with ThreadPoolExecutor(1) as other:
        while interrupted_at(line := line + 1, WAYS[way], tiny):
            assert not left_on(tiny), line
            if line % 50 == 0:  # nor is the model kept from other threads
                assert other.submit(last_logits, tiny, TOKENS).result().equal(expected)
    assert line > 50, "the lines that put hooks on and take them off were not watched"
    assert last_logits(tiny, TOKENS).equal(expected)


def test_what_is_left_on_is_seen(tiny):
    tiny.add_hook(NAMES[1], lambda value, hook: None)
    try:
        assert left_on(tiny) == {"blocks.0.mlp.hook_out"}
        with hooked(tiny, [(NAMES[1], lambda value, hook: 2 * value)]):
            assert len(tiny.hook_dict[NAMES[1]].fwd_hooks) == 2
        assert left_on(tiny) == {"blocks.0.mlp.hook_out"}, "another's hook was taken off"
    finally:
        tiny.reset_hooks()
    assert not left_on(tiny)


def test_a_second_thread_is_refused_and_the_first_goes_on(tiny):
    expected, inside = last_logits(tiny, TOKENS), Barrier(2, timeout=60)

    def second() -> int:
        inside.wait()
        ways = [*WAYS.values(), lambda model: nullcontext(last_logits(model, TOKENS))]
        ways.append(lambda model: nullcontext(mlp_output(model, 0, torch.zeros(32).double())))
        for way in ways:
            with pytest.raises(RuntimeError, match="another thread is using this model"):
                with way(tiny):
                    pass
        inside.wait()
        return len(ways)

    with ThreadPoolExecutor(1) as other:
        answer = other.submit(second)
        with alone(tiny), alone(tiny):
            inside.wait()
            assert last_logits(tiny, TOKENS).equal(expected)
            inside.wait()
        assert answer.result() == len(WAYS) + 2
        assert other.submit(last_logits, tiny, TOKENS).result().equal(expected)


def test_a_hook_that_is_not_there_is_refused_before_any_is_on(tiny):
    with pytest.raises(ValueError, match="no hook 'blocks.9.hook_z'"):
        with hooked(tiny, [(NAMES[0], lambda value, hook: None), ("blocks.9.hook_z", print)]):
            pass
    assert not left_on(tiny)


def test_the_self_check_does_not_take_a_model_with_hooks_for_the_model_itself(tiny):
    hook = ("hook_embed", lambda x, hook: 2 * x)
    with tiny.hooks(fwd_hooks=[hook]), pytest.raises(RuntimeError, match="before hooks are put on"):
        check(tiny)
