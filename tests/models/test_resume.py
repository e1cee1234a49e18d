"""A resumed run gives what a run of whole prompts with the same edit gives, and computes less."""

from __future__ import annotations

import pytest
import torch

from helpers.models.resume import Run
from helpers.models.run import last_logits

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(1, 101, (5, 6), generator=torch.Generator().manual_seed(0))


def whole(model, tokens, layer, position, edit):
    """The plain way: a hook on the whole model."""

    def replace(x, hook):
        x = x.clone()
        x[:, position] = edit(x[:, position])
        return x

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", replace)]):
        return last_logits(model, tokens)


def close(model, a, b):
    # Parts of two architectures run in 32 bits, whatever the weights are.
    return torch.allclose(a, b, atol=1e-12 if "gpt2" in model.cfg.model_name else 5e-6)


@pytest.mark.parametrize("position", [0, 2, -1])
@pytest.mark.parametrize("layer", [0, 1])
def test_an_edit_gives_what_whole_prompts_give(tiny, tokens, layer, position) -> None:
    run = Run.of(tiny, tokens, batch_size=2)
    rows = torch.tensor([3, 0, 3])
    with torch.no_grad():
        got = run.edited(tiny, layer, position, lambda x: 2 * x + 1, rows)
        wanted = whole(tiny, tokens[rows], layer, position, lambda x: 2 * x + 1)
    assert close(tiny, got, wanted)
    if position:  # GPT-Neo's local attention does not look back to the first token
        assert not close(tiny, got, run.logits[rows])
    assert close(tiny, run.edited(tiny, layer, position, lambda x: x), last_logits(tiny, tokens))


def test_vectors_are_added_to_every_prompt(tiny, tokens) -> None:
    vectors = torch.randn(3, 32, dtype=tiny.W_U.dtype, generator=torch.Generator().manual_seed(1))
    got = Run.of(tiny, tokens).steered(tiny, 1, 2, vectors, torch.tensor([1, 4]), batch_size=4)
    for vector, of_vector in zip(vectors, got):
        assert close(tiny, of_vector, whole(tiny, tokens[[1, 4]], 1, 2, vector.__add__))


def test_gradients_pass_through_an_edit(tiny, tokens) -> None:
    step = torch.zeros(32, dtype=tiny.W_U.dtype, requires_grad=True)
    resumed = Run.of(tiny, tokens).edited(tiny, 1, 2, step.__add__)
    (got,) = torch.autograd.grad(resumed[:, 7].sum(), step)
    (wanted,) = torch.autograd.grad(whole(tiny, tokens, 1, 2, step.__add__)[:, 7].sum(), step)
    assert wanted.abs().max() > 0.01
    assert close(tiny, got, wanted)


def test_layers_and_positions_before_the_edit_are_not_run_and_the_model_is_left_alone(
    tiny, tokens
) -> None:
    run, seen = Run.of(tiny, tokens), []

    def watch(x, hook):
        seen.append(tuple(x.shape[:2]))

    names = [f"blocks.{layer}.hook_mlp_out" for layer in (0, 1)]
    with tiny.hooks(fwd_hooks=[(name, watch) for name in names]):
        run.edited(tiny, 1, 4, lambda x: x)
    assert seen == [(5, 2)]

    def stop(x, hook):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), tiny.hooks(fwd_hooks=[(names[1], stop)]):
        run.edited(tiny, 1, 4, lambda x: x)
    assert close(tiny, last_logits(tiny, tokens), run.logits)


@pytest.mark.parametrize(("layer", "position"), [(2, 0), (-1, 0), (0, 6), (0, -7)])
def test_what_is_not_there_is_said(tiny, tokens, layer, position) -> None:
    with pytest.raises(ValueError, match="position" if layer == 0 else "layer"):
        Run.of(tiny, tokens).edited(tiny, layer, position, lambda x: x)
