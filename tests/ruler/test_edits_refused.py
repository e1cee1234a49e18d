"""Edits, strengths and files that make no sense are refused in a sentence, at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.activation_scaling.attribution import activ_patch, activations, attr_patch
from helpers.activation_scaling.dynamic import DynScalar
from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.points import Points
from helpers.models.resume import Run
from helpers.prompts.prompts import Prompts
from helpers.ruler.axes import Bench, strength_for
from helpers.ruler.edits import Edit, SetReading, ToldVec, last_points, size_of, steered
from helpers.ruler.export import attach, change, export
from helpers.ruler.methods import of_length
from helpers.ruler.pullback import all_paths, pullback
from helpers.ruler.relevance import gradient_maps
from helpers.ruler.table import layers_of
from helpers.ruler.vectors import RandomDirection
from tests.conftest import random_hf, random_model
from tests.sentences import refused

pytestmark = pytest.mark.unit
NAN, INF = float("nan"), float("inf")
LLAMA = "HuggingFaceTB/SmolLM2-135M-Instruct"
V = torch.linspace(-1, 1, 64, dtype=torch.float64).view(2, 32)
NO_VECTORS = (V[:, :5], V * NAN, V.long(), V[:0], None)
TOKENS = torch.arange(1, 9).view(2, 4)


@pytest.fixture(scope="module")
def model(tokenizer):
    return random_model(LLAMA, tokenizer)


@pytest.fixture(scope="module")
def prompts(model) -> Prompts:
    return Prompts.of(model, ["w1 w2 w3", "w4 w5 w6"], ["w7", "w8"], ["w9", "w10"])


def adding(model, vectors) -> Edit:
    return Edit(lambda p: ToldVec(last_points(model, p.n_pos, 1), vectors), 32, 1, 1)


def scalars(model, **where) -> ActivScalar:
    made = ActivScalar(Points.of(model, 4, **where), dtype=torch.float64)
    made.reset(seed=0, std=0.5)
    return made


def test_edits(model) -> None:
    run = Run.of(model, TOKENS)
    for layer in (0, -1, 3, 1.5, "1"):
        refused(last_points, model, 4, layer)
    for bad in NO_VECTORS:
        refused(ToldVec, last_points(model, 4, 1), bad)
    for bad in NO_VECTORS[1:]:
        refused(of_length, bad, 1.0)
    for bad in (NAN, INF, -1.0, "1"):
        refused(of_length, V, bad)
    refused(of_length, V * torch.tensor([[1.0], [0.0]]), 1.0)
    three = ToldVec(last_points(model, 4, 1), torch.cat([V, V[:1]]))
    assert "for 3 prompts, not for 2" in refused(steered, model, run, three, [1.0])
    points = last_points(model, 4, 1)
    for bad in ({"features": V * 0}, {"mean": V[0, :5]}, {"target": NAN}):
        how = {"features": V, "mean": V[0], "target": 1.0} | bad
        refused(lambda how: SetReading(points, **how), how)
    refused(size_of, torch.tensor([1.0, NAN]))
    refused(size_of, torch.tensor([]))


def test_edits_elsewhere_than_at_the_last_token(model, prompts) -> None:
    """A resumed run computes the last token alone, so others would be left out without a word."""
    run, anywhere = Run.of(model, prompts.tokens), Points.of(model, None)
    for made in (scalars(model), DynScalar(anywhere), scalars(model, positions=[0, -1])):
        assert "at the last token alone" in refused(steered, model, run, made, [1.0])
    longer = Run.of(model, torch.arange(1, 11).view(2, 5))
    refused(steered, model, longer, scalars(model, positions=[-1]), [1.0])
    assert "of other prompts" in refused(adding(model, V).logits, model, prompts, longer, [1.0])
    assert steered(model, run, scalars(model, positions=[-1]), [1.0]).isfinite().all()


def test_a_run_of_another_model(model, tokenizer) -> None:
    run, other = Run.of(model, TOKENS), random_model(LLAMA, tokenizer, seed=1)
    refused(run.edited, other, 0, -1, lambda x: x)
    refused(run.steered, other, 0, -1, V)
    refused(run.read, other, ["blocks.0.hook_resid_pre"], -1)
    refused(pullback, other, run, V, [1])


def test_strengths(model, prompts) -> None:
    bench = Bench(model, prompts)
    for bad in (0, -1, NAN, INF, "1"):
        refused(strength_for, bench, adding(model, V), bad)
        refused(strength_for, bench, adding(model, V), 0.1, bad)

    class Broken:
        def damage(self, edit, beta):
            return NAN

    assert "the damage at β = 1 = nan" in refused(strength_for, Broken(), None, 0.1)


def test_pullbacks_and_paths(model) -> None:
    run = Run.of(model, TOKENS)
    for bad in ([], [2], [1, 0], [0, 0], [0.5], 1, "1"):
        refused(pullback, model, run, V, bad)
    for bad in NO_VECTORS:
        refused(pullback, model, run, bad, [1])
    for bad in (0, -1, 1.5):
        refused(lambda size: pullback(model, run, V, [1], batch_size=size), bad)
    for bad in (-1, 3, 0.5):
        refused(lambda layer: next(all_paths(model, layer)), bad)


def test_maps_are_of_prompts_as_long_as_their_points(model, prompts) -> None:
    for points in (Points.of(model, 3), Points.of(model, 6), Points.of(model, 3, positions=[-1])):
        refused(gradient_maps, model, prompts, points)
        refused(activ_patch, model, prompts, points, {})
    refused(gradient_maps, model, prompts, Points.of(model, None))
    points = Points.of(model, 4)
    own = activations(model, prompts.tokens, points)
    first = next(iter(own))
    for other in ({}, own | {first: own[first][:1]}):
        for patch in (activ_patch, attr_patch):
            assert "no other activations" in refused(patch, model, prompts, points, other)


def test_layers_of_small_models_are_there() -> None:
    assert [layers_of(RandomDirection(), n) for n in (1, 2, 3, 30)] == [[1], [1], [1, 2], [10, 20]]


def test_files_of_edits(model, tokenizer, tmp_path: Path) -> None:
    made, plain = scalars(model, positions=[-1]), random_hf(LLAMA)
    tensors = export(model, made)
    refused(export, random_model("gpt2", tokenizer), scalars(model, positions=[0]))
    refused(export, random_model("EleutherAI/pythia-1.4b", tokenizer), made)
    for path in (tmp_path, tmp_path / "none" / "edit.safetensors"):
        with pytest.raises(OSError, match="no file can be written to"):
            export(model, made, path)
    for bad in ({"none/add": V[0]}, {"add": V[0]}, {"model.layers.0/what": V[0]}):
        assert "no exported edit" in refused(attach, plain, bad, 1.0)
    for bad in (NAN, INF):
        refused(attach, plain, tensors, bad)
    assert not any(module._forward_hooks for module in plain.modules())


def test_an_edit_takes_the_precision_of_the_model_and_leaves_zero_activations(model) -> None:
    plain, tensors = random_hf(LLAMA), export(model, scalars(model, positions=[-1]))
    found = []
    for kind in (torch.float64, torch.float32):
        handles = attach(plain, {name: t.to(kind) for name, t in tensors.items()}, 1.0)
        found.append(plain(TOKENS).logits[:, -1].detach())
        for handle in handles:
            handle.remove()
    assert torch.allclose(*found, atol=1e-5)
    zero = torch.zeros(1, 32)
    assert torch.equal(change(zero, {"dynamic": torch.ones(32)}, 1.0), zero)
