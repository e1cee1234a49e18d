"""Gradients of observables with respect to the residual stream in front of every layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked, rows
from helpers.models.hooks import hooked
from helpers.models.run import last_logits
from helpers.models.tokens import check_one_length, check_tokens
from helpers.observable_propagation.observables import Observable


@checked
def stream_gradients(
    model: TransformerBridge,
    tokens: Int[Tensor, "prompt pos"],
    observables: Sequence[Observable],
    positions: Sequence[int],
) -> Float[Tensor, "observable prompt layer place d_model"]:
    """What a small step of the stream at one token does to observables at the last one.

    The whole rest of the model is in it: a step k·v in front of a layer changes the observable by
    k·(v · g) to first order. One forward pass, and one backward pass for each observable.

    Args:
        tokens: prompts of one length.
        positions: the places, the same in every prompt.

    Returns:
        In nats per unit of the stream.

    Raises:
        TypeError, ValueError: prompts of several lengths, or that the model cannot take; no
            observable, or a position that is not there.
    """
    check_tokens(model, tokens)
    check_one_length(tokens)
    if not observables:
        raise ValueError("observables is empty: give at least one.")
    steps, found = [], []
    places = rows(positions, tokens.shape[1], "position").tolist()

    def watch(x: Tensor, hook: HookPoint) -> Tensor:
        # A step of zero, with respect to which a gradient can be taken.
        steps.append(torch.zeros_like(x, requires_grad=True))
        return x + steps[-1]

    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.cfg.n_layers)]
    with torch.enable_grad(), hooked(model, [(name, watch) for name in names]):
        logits = last_logits(model, tokens)
        for observable in observables:
            total = observable.measure(logits).sum()
            each = torch.autograd.grad(total, steps, retain_graph=True)
            found.append(torch.stack(each, 1)[:, :, places])
    return torch.stack(found)
