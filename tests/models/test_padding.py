"""Prompts of several lengths in one batch: right at each prompt's own end, or refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from helpers.activation_scaling import attribution
from helpers.activation_scaling.points import Points
from helpers.models.direct import direct_attribution
from helpers.models.prefix import Prefix
from helpers.models.run import last_logits, read_activations
from helpers.models.tokens import PAD, ends, resolve_position
from helpers.observable_propagation.edits import edited, steer
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching
from helpers.observable_propagation.paths import path, reading
from helpers.prompts.cases import counterfactual
from tests.conftest import mixed

pytestmark = pytest.mark.unit
PROMPTS = [torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([0, 6, 7, 8]), torch.tensor([0, 9, 1])]
BATCH = torch.nn.utils.rnn.pad_sequence(PROMPTS, batch_first=True, padding_value=PAD)


def observable(model) -> Observable:
    return Observable.of(model, {"w3": 1, "w5": -1})


def vectors(model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, model.cfg.d_model, generator=generator, dtype=torch.float64)


def attributed(model, tokens):
    parts = direct_attribution(model, tokens, observable(model).vector(model))
    return torch.cat([parts.heads.sum(-1).flatten(1), parts.mlps, parts.embedding[:, None]], 1)


def patched(model, tokens, **how):
    other = torch.where(tokens > 0, (tokens + 20) % 100, tokens)  # PAD and the first token stay
    return path_patching(model, tokens, other, observable(model), **how)


def with_edit(model, tokens):
    with edited(model, 1, ends(tokens), lambda x: x + vectors(model)[0]):
        return last_logits(model, tokens)


def read_path(model, tokens):
    chain = path(model, "0.1 → 1.2")
    values = []
    for row in tokens:
        run = reading(model, chain, row, [1, -1, -1])
        values.append(torch.stack([run.points["ln_final"], run.points["blocks.1.ln1"]]) * run.score)
    return torch.stack(values)


WAYS = {
    "last_logits": last_logits,
    "read_activations": lambda model, tokens: read_activations(model, tokens, [])[1],
    "direct_attribution": attributed,
    "path_patching": patched,
    "path_patching, values": partial(patched, values_only=True),
    "steer": lambda model, t: steer(model, t, 1, -1, vectors(model)).transpose(0, 1),
    "steer, from the end": lambda model, t: steer(model, t, 0, -2, vectors(model))[0],
    "edited": with_edit,
    "reading": read_path,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_padded_batch_gives_what_each_prompt_gives_alone(tiny, way):
    together = WAYS[way](tiny, BATCH)
    for prompt, ours in zip(PROMPTS, together):
        alone = WAYS[way](tiny, prompt[None])[0]
        torch.testing.assert_close(ours, alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together[0], together[1], rtol=1e-3, atol=1e-3)


def test_activations_at_a_prompts_own_positions_are_those_of_the_prompt_alone(tiny):
    name = "blocks.1.hook_resid_post"
    together = read_activations(tiny, BATCH, [name], batch_size=2)[0][name]
    for prompt, ours in zip(PROMPTS, together):
        alone = read_activations(tiny, prompt[None], [name])[0][name][0]
        torch.testing.assert_close(ours[: len(prompt)], alone, rtol=1e-5, atol=1e-6)


def test_positions_are_counted_in_each_prompt_and_must_be_in_all(tiny):
    assert resolve_position(BATCH, -1).tolist() == ends(BATCH).tolist() == [5, 3, 2]
    assert resolve_position(BATCH, 1).tolist() == [1, 1, 1]
    for position in (3, -4):
        with pytest.raises(ValueError, match=f"no position {position} in a prompt of 3 tokens"):
            steer(tiny, BATCH, 0, position, vectors(tiny))


def test_what_is_tied_to_positions_refuses_prompts_of_several_lengths(tiny):
    prompts = mixed(tiny, ["w6 w2 w8", "w7 w9"], ["w6", "w7"], ["w8", "w9"])
    points = Points.of(tiny, prompts.n_pos, positions=[-1])
    one = prompts.at([0])
    given = attribution.activations(tiny, one.tokens, points)
    for refused in (
        lambda: attribution.activations(tiny, prompts.tokens, points),
        lambda: attribution.noised_activations(tiny, prompts, points),
        lambda: attribution.activ_patch(tiny, prompts, points, given),
        lambda: attribution.attr_patch(tiny, prompts, points, given),
        lambda: attribution.direct_logit(tiny, prompts, points),
    ):
        with pytest.raises(ValueError, match="prompts of one length"):
            refused()
    with pytest.raises(ValueError, match="must match one to one"):
        path_patching(tiny, BATCH[:1], BATCH[1:2], observable(tiny))
    with pytest.raises(ValueError, match="unequal lengths"):
        counterfactual(tiny, prompts)
    with pytest.raises(ValueError, match="prompts of one length"):
        Prefix.run(tiny, BATCH)
