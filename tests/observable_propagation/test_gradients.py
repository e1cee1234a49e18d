"""Gradients of the stream, against steps that the model takes."""

from __future__ import annotations

import pytest
import torch

from helpers.models.run import last_logits
from helpers.models.tokens import PAD
from helpers.observable_propagation.edits import edited
from helpers.observable_propagation.gradients import stream_gradients
from helpers.observable_propagation.observables import Observable

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 15).view(2, 7)
PLACES = [6, 1]  # in an order of their own


@torch.no_grad()
def moved(model, n: Observable, layer: int, position: int, v: torch.Tensor) -> torch.Tensor:
    values = []
    for step in (v, -v):
        with edited(model, layer, position, lambda x, step=step: x + step):
            values.append(n.measure(last_logits(model, TOKENS)))
    return (values[0] - values[1]) / 2


def test_a_small_step_changes_an_observable_as_the_gradient_says(tiny) -> None:
    observables = [Observable.of(tiny, {"w3": 1, "w5": -1}), Observable.of(tiny, {"w7": 1})]
    G = stream_gradients(tiny, TOKENS, observables, PLACES)
    assert G.shape == (2, 2, tiny.cfg.n_layers, len(PLACES), tiny.cfg.d_model)
    generator = torch.Generator().manual_seed(0)
    v = 1e-3 * torch.randn(tiny.cfg.d_model, generator=generator).to(G)
    for i, n in enumerate(observables):
        for layer in range(tiny.cfg.n_layers):
            for k, position in enumerate(PLACES):
                measured = moved(tiny, n, layer, position, v)
                assert torch.allclose(measured, G[i, :, layer, k] @ v, rtol=1e-2, atol=2e-6)
                if position == 6:  # GPT-Neo's last layer does not attend as far back as token 1
                    assert not torch.allclose(measured, G[i, :, layer, k] @ v.roll(1), rtol=1e-2)


def test_prompts_of_several_lengths_and_lists_are_refused(tiny) -> None:
    n, padded = Observable.of(tiny, {"w3": 1}), TOKENS.clone()
    padded[1, -2:] = PAD
    with pytest.raises(ValueError, match="one length"):
        stream_gradients(tiny, padded, [n], [0])
    with pytest.raises(TypeError, match="tokens"):
        stream_gradients(tiny, [[1, 2]], [n], [0])
