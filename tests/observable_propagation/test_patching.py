"""Path patching, direct attribution and steering against plain hooks."""

from __future__ import annotations

import pytest
import torch

from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching

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
