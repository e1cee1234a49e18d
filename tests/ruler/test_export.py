"""An exported edit on a plain model gives the logits of the edit on the book's model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.activation_scaling.interventions import ActivScalar, SteerVec
from helpers.prompts.prompts import Prompts
from helpers.ruler.edits import GatedVec, HeadGates, LastDynScalar, LoReFT, ToldVec, last_points
from helpers.ruler.export import as_steering_vector, attach, export
from tests.conftest import ARCHITECTURES, random_hf, random_model
from tests.models.families import family, plain_family

pytestmark = pytest.mark.unit

KINDS = {
    ActivScalar: (None, ("attn_out", "mlp_out")),
    SteerVec: (1, ("resid_post",)),
    LastDynScalar: (None, ("attn_out", "mlp_out")),
    LoReFT: (1, ("resid_post",)),
    GatedVec: (2, ("resid_post",)),
    HeadGates: (None, ("z",)),
}


def made_on(model, kind, n_pos: int):
    layer, sites = KINDS[kind]
    made = kind(last_points(model, n_pos, layer, *sites), dtype=torch.float64)
    made.reset(seed=1, std=0.5)
    return made


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda name: name.split("/")[-1])
@pytest.mark.parametrize("beta", [1.0, -0.7])
@pytest.mark.slow
def test_logits_of_the_plain_model(tokenizer, tmp_path: Path, architecture, kind, beta) -> None:
    model, plain = random_model(architecture, tokenizer), random_hf(architecture)
    prompts = Prompts.of(model, ["w1 w2 w3", "w4 w5 w6"], ["w7", "w8"], ["w9", "w10"])
    made = made_on(model, kind, prompts.n_pos)
    export(model, made, tmp_path / "edit.safetensors")
    with torch.no_grad():
        with made.applied(model, beta):
            expected = model(prompts.tokens)[:, -1]
        before = plain(prompts.tokens).logits[:, -1]
        handles = attach(plain, load_file(tmp_path / "edit.safetensors"), beta)
        after = plain(prompts.tokens).logits[:, -1]
        for handle in handles:
            handle.remove()
        assert torch.equal(plain(prompts.tokens).logits[:, -1], before), "taken off again"
    assert (after - expected).abs().max() <= 1e-5
    assert (after - before).abs().max() > 1e-3, "the edit does something"


PLACES = {"attn_out": ActivScalar, "mlp_out": SteerVec, "z": HeadGates, "resid_post": SteerVec}
REFUSED = {  # the others export all four
    "GPT-2": set(),
    "Gemma 3": set(),
    "OLMo 2": set(),
    "GLM-4": set(),
    "Granite": {"attn_out", "mlp_out"},  # multiplies what its modules give
    "Bloom": {"attn_out", "mlp_out"},  # adds the stream inside of its modules
    "OPT": {"mlp_out"},  # has no module for its MLP
    "Cohere": set(),
    "Phi-2": set(),
    "Mixtral": set(),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.slow
def test_an_edit_in_any_family_is_at_its_place_or_is_refused(tokenizer, name: str) -> None:
    """Where a norm comes after attention and MLP, what is edited is what leaves the norm."""
    model, plain, refused = family(name, tokenizer), plain_family(name), set()
    tokens = torch.arange(1, 9).view(2, 4)
    for site, kind in PLACES.items():
        made = kind(last_points(model, 4, None, site), dtype=torch.float64)
        made.reset(seed=2, std=0.5)
        try:
            tensors = export(model, made)
        except ValueError as error:
            assert "no module" in str(error)
            refused.add(site)
            continue
        handles = attach(plain, tensors, 1.0)
        with torch.no_grad(), made.applied(model, 1.0):
            found, expected = plain(tokens).logits[:, -1], model(tokens)[:, -1]
        for handle in handles:
            handle.remove()
        assert (found - expected).norm() <= 1e-5 * expected.norm(), site
        assert (found - plain(tokens).logits[:, -1]).norm() > 1e-3 * expected.norm(), site
    assert refused == REFUSED[name]


def test_what_cannot_be_exported_is_refused(tiny) -> None:
    points = last_points(tiny, 4, 1)
    differ = ToldVec(points, torch.eye(tiny.cfg.d_model, dtype=torch.float64)[:2])
    with pytest.raises(ValueError, match="each pair of answers"):
        export(tiny, differ)
    from helpers.activation_scaling.points import Points

    with pytest.raises(ValueError, match="last token"):
        export(tiny, SteerVec(Points.of(tiny, 4)))
    with pytest.raises(ValueError, match="no vector"):
        as_steering_vector(made_on(tiny, LoReFT, 4))
    vector = made_on(tiny, SteerVec, 4)
    layers = as_steering_vector(vector)["layer_activations"]
    assert layers.keys() == {0} and torch.equal(layers[0], vector.theta["resid_post"][0, 0])
