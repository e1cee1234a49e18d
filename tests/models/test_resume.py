"""A resumed run ends as a run of whole prompts with the same edit does, and computes less."""

from __future__ import annotations

import pytest
import torch

from helpers.models import prefix
from helpers.models.resume import Run
from helpers.models.run import last_logits, read_activations, unembed
from helpers.observable_propagation.edits import edited

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module", params=[0, 2], ids=["nothing shared", "two tokens shared"])
def tokens(request: pytest.FixtureRequest) -> torch.Tensor:
    drawn = torch.randint(1, 101, (5, 6), generator=torch.Generator().manual_seed(0))
    drawn[:, : request.param] = drawn[0, : request.param]
    drawn[:, 3] = drawn[0, 3]  # the same again behind tokens that differ
    return drawn


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "WORTH", 1)


def whole(model, tokens, layer, position, edit):
    """The plain way: a hook on the whole model."""
    ends = []
    watch = ("ln_final.hook_in", lambda x, hook: ends.append(x[:, -1].clone()))
    with edited(model, layer, position, edit), model.hooks(fwd_hooks=[watch]):
        last_logits(model, tokens)
    return ends[0]


def close(model, a, b):
    # Parts of two architectures run in 32 bits, whatever the weights are.
    exact = model.cfg.architecture in ("GPT2LMHeadModel", "GPTNeoXForCausalLM")
    return torch.allclose(a, b, atol=1e-12 if exact else 5e-6)


def test_a_run_keeps_the_whole_stream(tiny, tokens) -> None:
    run = Run.of(tiny, tokens, batch_size=2)
    names = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "ln_final.hook_in"]
    kept, _ = read_activations(tiny, tokens, names)
    for stream, wanted in zip(run.stream, kept.values(), strict=True):
        assert close(tiny, stream, wanted)
    assert close(tiny, unembed(tiny, run.ends), last_logits(tiny, tokens))


@pytest.mark.parametrize("position", [0, 2, -1])
@pytest.mark.parametrize("layer", [0, 1])
def test_an_edit_gives_what_whole_prompts_give(tiny, tokens, layer, position) -> None:
    run, rows = Run.of(tiny, tokens, batch_size=2), torch.tensor([3, 0, 3])
    with torch.no_grad():
        got = run.edited(tiny, layer, position, lambda x: 2 * x + 1, rows)
        wanted = whole(tiny, tokens[rows], layer, position, lambda x: 2 * x + 1)
        same = run.edited(tiny, layer, position, lambda x: x)
    assert close(tiny, got, wanted)
    assert close(tiny, same, run.ends)
    if position == -1:  # little of what other tokens hold reaches the last one
        assert not close(tiny, got, run.ends[rows])


def test_vectors_are_added_to_every_prompt(tiny, tokens) -> None:
    vectors = torch.randn(3, 32, dtype=tiny.W_U.dtype, generator=torch.Generator().manual_seed(1))
    got = Run.of(tiny, tokens).steered(tiny, 1, 2, vectors, torch.tensor([1, 4]), batch_size=4)
    for vector, of_vector in zip(vectors, got, strict=True):
        assert close(tiny, of_vector, whole(tiny, tokens[[1, 4]], 1, 2, vector.__add__))


@pytest.mark.parametrize("position", [0, -2])
def test_other_activations_are_read_at_one_position(tiny, tokens, position) -> None:
    names = ["blocks.0.attn.hook_z", "blocks.1.ln2.hook_out", "blocks.0.hook_mlp_out"]
    kept, _ = read_activations(tiny, tokens, names)
    got = Run.of(tiny, tokens).read(tiny, names, position)
    for value, wanted in zip(got, kept.values(), strict=True):
        assert close(tiny, value, wanted[:, position])


def test_gradients_pass_through_an_edit(tiny, tokens) -> None:
    step = torch.zeros(32, dtype=tiny.W_U.dtype, requires_grad=True)
    resumed = Run.of(tiny, tokens).edited(tiny, 1, 2, step.__add__)
    (got,) = torch.autograd.grad(resumed[:, 7].sum(), step)
    (wanted,) = torch.autograd.grad(whole(tiny, tokens, 1, 2, step.__add__)[:, 7].sum(), step)
    assert wanted.abs().max() > 0.01
    assert close(tiny, got, wanted)


def test_what_lies_before_an_edit_is_not_run_and_the_model_is_left_as_it_was(tiny, tokens) -> None:
    run, seen = Run.of(tiny, tokens), []
    names = [f"blocks.{layer}.hook_mlp_out" for layer in (0, 1)]

    def watch(x, hook):
        seen.append(tuple(x.shape[:2]))

    def stop(x, hook):
        raise KeyboardInterrupt

    with tiny.hooks(fwd_hooks=[(name, watch) for name in names]):
        run.edited(tiny, 1, 4, lambda x: x)
    assert seen == [(5, 2)]
    with pytest.raises(KeyboardInterrupt), tiny.hooks(fwd_hooks=[(names[1], stop)]):
        run.edited(tiny, 1, 4, lambda x: x)
    assert close(tiny, Run.of(tiny, tokens).ends, run.ends)


@pytest.mark.parametrize(("worth", "runs"), [(8, [(1, 2), (5, 4)]), (9, [(5, 6)])])
def test_a_common_start_is_run_once_where_that_saves_enough(tiny, monkeypatch, worth, runs) -> None:
    monkeypatch.setattr(prefix, "WORTH", worth)
    tokens, seen = torch.arange(1, 31).view(5, 6), []
    tokens[:, :2] = tokens[0, :2]  # four prompts need not run these two
    watch = ("blocks.0.hook_mlp_out", lambda x, hook: seen.append(tuple(x.shape[:2])))
    with tiny.hooks(fwd_hooks=[watch]):
        Run.of(tiny, tokens)
    assert seen == runs


@pytest.mark.parametrize(("layer", "position"), [(2, 0), (-1, 0), (0, 6), (0, -7)])
def test_an_edit_that_is_nowhere_is_refused(tiny, tokens, layer, position) -> None:
    with pytest.raises(ValueError, match="position" if layer == 0 else "layer"):
        Run.of(tiny, tokens).edited(tiny, layer, position, lambda x: x)
