"""Path patching, direct attribution and steering against plain hooks."""

from __future__ import annotations

import pytest
import torch

from helpers.models.run import last_logits
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import added, direct_attribution, path_patching, steer

pytestmark = pytest.mark.unit
CLEAN, CORRUPTED = torch.arange(1, 15).view(2, 7), torch.arange(31, 45).view(2, 7)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def observable(model) -> Observable:
    return Observable.of(model, {"w3": 1, "w5": -1})


def keep_all(model, tokens, names) -> dict[str, torch.Tensor]:
    kept = {}
    with model.hooks(
        fwd_hooks=[
            (name, lambda value, hook, name=name: kept.__setitem__(name, value.clone()))
            for name in names
        ]
    ):
        model(tokens)
    return kept


def patched_by_hooks(model, layer: int, head: int, values_only: bool = False) -> torch.Tensor:
    """One head at a time, in three runs: read; rerun its layer on the corrupted ln1 input; put its z back with all else frozen."""
    frozen = [
        f"blocks.{i}.{site}"
        for i in range(model.cfg.n_layers)
        for site in ("hook_attn_out", "hook_mlp_out")
    ]
    name, queries, keys = (f"blocks.{layer}.attn.hook_{x}" for x in "zqk")
    clean = keep_all(model, CLEAN, [*frozen, name, queries, keys])
    corrupted = keep_all(model, CORRUPTED, [f"blocks.{layer}.ln1.hook_in"])
    new = {}

    def put_back(values, site):
        return site, lambda value, hook: values[site]

    hooks = [
        put_back(corrupted, f"blocks.{layer}.ln1.hook_in"),
        (name, lambda value, hook: new.__setitem__("z", value.clone())),
    ]
    if (
        values_only
    ):  # scores by their queries and keys: GPT-Neo discards edits of the pattern itself
        hooks += [put_back(clean, queries), put_back(clean, keys)]
    with model.hooks(fwd_hooks=hooks):
        model(CLEAN)

    def put(value, hook):
        z = clean[name].clone()
        z[:, :, head] = new["z"][:, :, head]
        return z

    freeze = [put_back(clean, site) for site in frozen if site != f"blocks.{layer}.hook_attn_out"]
    with model.hooks(fwd_hooks=[*freeze, (name, put)]):
        return observable(model).measure(model(CLEAN)[:, -1])


@pytest.mark.parametrize("values_only", [False, True])
def test_path_patching_equals_one_head_at_a_time_by_plain_hooks(tiny, values_only: bool) -> None:
    effects = path_patching(tiny, CLEAN, CORRUPTED, observable(tiny), values_only=values_only)
    assert effects.shape == (2, tiny.cfg.n_layers, tiny.cfg.n_heads)
    before = observable(tiny).measure(tiny(CLEAN)[:, -1])
    for layer in range(tiny.cfg.n_layers):
        for head in range(tiny.cfg.n_heads):
            expected = before - patched_by_hooks(tiny, layer, head, values_only)
            torch.testing.assert_close(effects[:, layer, head], expected, **TOLERANCE)
            assert not torch.allclose(
                -effects[:, layer, head], expected, rtol=1e-2, atol=1e-4
            )  # the paper's words: corrupted − clean
    other = path_patching(tiny, CLEAN, CORRUPTED, observable(tiny), values_only=not values_only)
    assert not torch.allclose(effects, other, rtol=1e-2, atol=1e-4)


def test_patching_a_prompt_into_itself_does_nothing(tiny) -> None:
    assert path_patching(tiny, CLEAN, CLEAN, observable(tiny)).abs().max() < 1e-12


def test_patching_needs_prompts_that_match(tiny) -> None:
    with pytest.raises(ValueError, match="must match one to one"):
        path_patching(tiny, CLEAN, CORRUPTED[:1], observable(tiny))


def test_the_parts_of_an_observable_sum_to_it(tiny) -> None:
    parts = direct_attribution(tiny, CLEAN, observable(tiny))
    heads = parts.heads.sum((1, 2, 3))
    whole = (
        heads + parts.attention_biases.sum(1) + parts.mlps.sum(1) + parts.embedding + parts.constant
    )
    torch.testing.assert_close(whole, parts.total, **TOLERANCE)
    torch.testing.assert_close(
        parts.total, observable(tiny).measure(tiny(CLEAN)[:, -1]), **TOLERANCE
    )
    assert not torch.allclose(whole - heads, parts.total, rtol=1e-2)


def test_each_heads_attribution_is_its_written_vector_times_the_fixed_norm(tiny) -> None:
    parts = direct_attribution(tiny, CLEAN, observable(tiny))
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(tiny.cfg.n_layers)]
    kept = keep_all(tiny, CLEAN, [*names, "ln_final.hook_in", "ln_final.hook_out"])
    x = kept["ln_final.hook_in"][:, -1].requires_grad_(True)
    with torch.enable_grad():
        centred = x - x.mean(-1, keepdim=True) if tiny.cfg.normalization_type == "LN" else x
        sigma = (centred.pow(2).mean(-1, keepdim=True) + tiny.cfg.eps).sqrt().detach()
        read = (tiny.get_submodule("ln_final").weight * centred / sigma) @ observable(tiny).vector(
            tiny
        )
        (y,) = torch.autograd.grad(read.sum(), x)
    for layer, name in enumerate(names):
        written = torch.einsum("bhe,hem->bhm", kept[name][:, -1], tiny.blocks[layer].attn.W_O)
        torch.testing.assert_close(
            parts.heads[:, layer].sum(-1), torch.einsum("bhm,bm->bh", written, y), **TOLERANCE
        )


def test_a_vector_is_added_to_one_tokens_residual_stream(tiny) -> None:
    vector = torch.randn(
        tiny.cfg.d_model, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    with added(tiny, 1, 4, vector):
        ours = last_logits(tiny, CLEAN)

    def after_the_first_block(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = hidden.clone()
        hidden[:, 4] += vector
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    inner = tiny.original_model.base_model
    block = (inner.h if hasattr(inner, "h") else inner.layers)[0]
    handle = block.register_forward_hook(after_the_first_block)
    try:
        expected = tiny.original_model(CLEAN).logits[:, -1]
    finally:
        handle.remove()
    torch.testing.assert_close(ours, expected, **TOLERANCE)
    assert not torch.allclose(ours, last_logits(tiny, CLEAN), rtol=1e-4)


@pytest.mark.parametrize("layer", [0, 1])
def test_steering_with_many_vectors_is_steering_with_each(tiny, layer: int) -> None:
    vectors = torch.randn(
        3, tiny.cfg.d_model, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    logits = steer(tiny, CLEAN, layer, -3, vectors, batch_size=4)
    assert logits.shape == (3, 2, tiny.cfg.d_vocab)
    for row, vector in zip(logits, vectors):
        with added(tiny, layer, 4, vector):
            torch.testing.assert_close(row, last_logits(tiny, CLEAN), **TOLERANCE)
    nothing = steer(tiny, CLEAN, layer, 4, 0 * vectors[:1])
    torch.testing.assert_close(nothing[0], last_logits(tiny, CLEAN))
    assert not torch.allclose(logits[0], logits[1], rtol=1e-4)


def test_hooks_are_gone_after_an_error(tiny) -> None:
    vector = torch.ones(tiny.cfg.d_model, dtype=torch.float64)
    before = last_logits(tiny, CLEAN)
    with (
        pytest.raises(ValueError, match="position 7 is not there: the prompt has 7 tokens"),
        added(tiny, 0, 7, vector),
    ):
        last_logits(tiny, CLEAN)
    with pytest.raises(ValueError, match="layer 2 is not there"), added(tiny, 2, 0, vector):
        pass
    assert torch.equal(last_logits(tiny, CLEAN), before)
