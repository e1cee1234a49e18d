"""Hooks on a model, for one thread at a time, and off again whatever happens.

Hooks are on the model itself: what a second thread runs meanwhile would be steered too. And an
interrupt can come while hooks are put on or taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import get_ident
from weakref import WeakKeyDictionary

from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked

# From (activation, hook=its hook point) to the activation that replaces it, or to None.
Hook = tuple[str, Callable[..., Tensor | None]]
# The thread that uses a model, with a mark of the outermost block that does.
_users: WeakKeyDictionary[TransformerBridge, tuple[int, object]] = WeakKeyDictionary()
# Where the prompts of the padded batch end that a model is running.
_ends: WeakKeyDictionary[TransformerBridge, Tensor] = WeakKeyDictionary()


@contextmanager
def alone(model: TransformerBridge, ends: Int[Tensor, " batch"] | None = None) -> Iterator[None]:
    """Keep other threads off a model, inside a ``with`` block; blocks of one thread may be nested.

    Args:
        ends: of a padded batch, see :func:`padded_ends`.

    Raises:
        RuntimeError: another thread is in such a block.
    """
    mine = get_ident(), object()
    try:
        try:
            if _users.setdefault(model, mine)[0] != mine[0]:
                raise RuntimeError(
                    f"another thread is using this model ({model.cfg.model_name}), and hooks act "
                    "on all its runs: wait until it is done, or load a model for each thread."
                )
            if ends is not None:
                _ends[model] = ends
            yield
        finally:
            _leave(model, mine, ends)
    finally:
        _leave(model, mine, ends)  # again, in case that an interrupt cut the first short


def _leave(model: TransformerBridge, mine: tuple[int, object], ends: Tensor | None) -> None:
    if ends is not None and _ends.get(model) is ends:
        _ends.pop(model, None)
    if _users.get(model) is mine:
        _users.pop(model, None)


def padded_ends(model: TransformerBridge) -> Int[Tensor, " batch"] | None:
    """For a hook that is tied to positions: where the prompts of a padded batch end, else None."""
    return _ends.get(model)


@contextmanager
@checked
def hooked(model: TransformerBridge, hooks: Sequence[Hook]) -> Iterator[TransformerBridge]:
    """The model with hooks, inside a ``with`` block; other hooks on it stay as they are.

    Raises:
        ValueError: a hook that this model does not have.
        RuntimeError: another thread is using the model.
    """
    places = model.hook_dict
    if unknown := [name for name, _ in hooks if name not in places]:
        raise ValueError(
            f"{model.cfg.model_name} has no hook {unknown[0]!r}; model.hook_dict has all."
        )
    # Objects of this block's own, by which its hooks are known again.
    own = [(places[name], partial(function)) for name, function in hooks]
    before = [(point, set(point._forward_hooks)) for point, _ in own]
    with alone(model):
        try:
            try:
                for point, function in own:
                    model.check_hooks_to_add(point, point.name, function)
                    point.add_hook(function)
                yield model
            finally:
                _take_off(own, before)
        finally:
            _take_off(own, before)  # again, in case that an interrupt cut the first short


def _take_off(own: Sequence[tuple], before: Sequence[tuple]) -> None:
    functions = {id(function) for _, function in own}
    for point, present in before:
        point.fwd_hooks[:] = [one for one in point.fwd_hooks if id(one.user_hook) not in functions]
        kept = present | {one.hook.id for one in point.fwd_hooks}
        # From torch's own list, where a hook is before TransformerLens has noted it.
        for key in list(point._forward_hooks):
            if key not in kept:
                point._forward_hooks.pop(key, None)
