"""Path patching against one head at a time, patched by plain hooks."""

from __future__ import annotations

import pytest
import torch

from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.patching import path_patching

pytestmark = pytest.mark.unit
CLEAN, CORRUPTED = torch.arange(1, 15).view(2, 7), torch.arange(31, 45).view(2, 7)


@pytest.fixture
def n(tiny) -> Observable:
    return Observable.of(tiny, {"w3": 1, "w5": -1})


def patched_by_hooks(model, n, layer: int, head: int, values_only: bool) -> torch.Tensor:
    """Rerun a layer on the corrupted input of ln1; put one head's z back with all else frozen."""
    site, read = f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.ln1.hook_in"
    _, clean = model.run_with_cache(CLEAN)
    _, corrupted = model.run_with_cache(CORRUPTED)
    new = {}

    def keep(value, hook):
        new["z"] = value.clone()

    def frozen(name):
        return name, lambda value, hook: clean[name]

    hooks = [(read, lambda value, hook: corrupted[read]), (site, keep)]
    if values_only:  # scores by queries and keys: GPT-Neo discards edits of the pattern itself
        hooks += [frozen(f"blocks.{layer}.attn.hook_{x}") for x in "qk"]
    with model.hooks(fwd_hooks=hooks):
        model(CLEAN)

    def put(value, hook):
        z = clean[site].clone()
        z[:, :, head] = new["z"][:, :, head]
        return z

    hooks = [(site, put)]
    for i in range(model.cfg.n_layers):
        for name in (f"blocks.{i}.hook_attn_out", f"blocks.{i}.hook_mlp_out"):
            if name != f"blocks.{layer}.hook_attn_out":
                hooks.append(frozen(name))
    with model.hooks(fwd_hooks=hooks):
        return n.measure(model(CLEAN)[:, -1])


@pytest.mark.parametrize("values_only", [False, True])
@pytest.mark.slow
def test_path_patching_equals_one_head_at_a_time_by_plain_hooks(tiny, n, values_only) -> None:
    effects = path_patching(tiny, CLEAN, CORRUPTED, n, values_only=values_only, batch_size=1)
    assert effects.shape == (2, tiny.cfg.n_layers, tiny.cfg.n_heads)
    before = n.measure(tiny(CLEAN)[:, -1])
    for layer in range(tiny.cfg.n_layers):
        for head in range(tiny.cfg.n_heads):
            expected = before - patched_by_hooks(tiny, n, layer, head, values_only)
            torch.testing.assert_close(effects[:, layer, head], expected, rtol=1e-5, atol=1e-6)
            # Negative control: the paper's words say corrupted − clean.
            assert not torch.allclose(-effects[:, layer, head], expected, rtol=1e-2, atol=1e-4)
    other = path_patching(tiny, CLEAN, CORRUPTED, n, values_only=not values_only)
    assert not torch.allclose(effects, other, rtol=1e-2, atol=1e-4)


def test_patching_a_prompt_into_itself_does_nothing_and_prompts_must_match(tiny, n) -> None:
    assert path_patching(tiny, CLEAN, CLEAN, n).abs().max() < 1e-12
    with pytest.raises(ValueError, match="corrupted has shape"):
        path_patching(tiny, CLEAN, CORRUPTED[:1], n)
