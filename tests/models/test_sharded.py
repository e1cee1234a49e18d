"""Models whose layers lie in several places (``device_map``): what works today, and what does not and says so.

Without several GPUs the other place is the disk, from which accelerate fetches each layer when it is called; what holds a
layer's weights only while it runs is the same.
"""

from __future__ import annotations

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import SteerVec
from helpers.activation_scaling.objective import Objective, evaluate
from helpers.activation_scaling.points import Points
from helpers.models.load import fingerprint, freeze
from helpers.models.run import last_logits
from helpers.observable_propagation.features import head_features
from helpers.prompts.prompts import Prompts
from tests.conftest import ARCHITECTURES, random_hf
from tests.plain_hooks import blocks

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda name: name.split("/")[-1])
def both(request, tokenizer, tmp_path_factory) -> tuple[TransformerBridge, TransformerBridge]:
    """One tiny random model twice: in one place, and with its last layer on disk."""
    folder, name = tmp_path_factory.mktemp("model"), request.param
    hf = random_hf(name)
    hf.save_pretrained(folder)
    modules = {module: path for path, module in hf.named_modules()}
    last = modules[blocks(hf)[-1]]
    # Every part without parts of its own, and the layers as a whole.
    places = {path: "cpu" for module, path in modules.items() if path and not [*module.children()]}
    layers = [modules[block] for block in blocks(hf)]
    places = {
        path: "cpu"
        for path in places
        if not path.startswith(tuple(f"{layer}." for layer in layers))
    } | dict.fromkeys(layers, "cpu")
    kind = {"dtype": torch.float64, "attn_implementation": "eager"}
    split = type(hf).from_pretrained(
        folder, device_map=places | {last: "disk"}, offload_folder=folder / "offload", **kind
    )
    assert set(split.hf_device_map.values()) == {"cpu", "disk"}
    boot = {"tokenizer": tokenizer, "dtype": torch.float64}
    whole = TransformerBridge.boot_transformers(name, hf_model=hf, device="cpu", **boot)
    return freeze(whole), freeze(TransformerBridge.boot_transformers(name, hf_model=split, **boot))


@pytest.fixture
def prompts(both) -> Prompts:
    return Prompts.of(both[0], ["w1 w2 w3", "w4 w5 w6"], ["w10", "w11"], ["w13", "w14"])


def test_logits_are_those_of_the_model_in_one_place(both, prompts):
    whole, split = both
    assert split.cfg.n_devices == 2
    torch.testing.assert_close(
        last_logits(split, prompts.tokens), last_logits(whole, prompts.tokens)
    )


def test_a_fit_and_its_evaluation_are_those_of_the_model_in_one_place(both, prompts):
    learned, measured = [], []
    for model in both:
        vectors = SteerVec(Points.of(model, prompts.n_pos), dtype=torch.float64)
        fit(model, vectors, prompts, Objective(margin=0.1), learning_rate=0.05, epochs=10)
        learned.append(vectors.vec())
        measured.append(evaluate(model, vectors, prompts).E0)
    torch.testing.assert_close(*learned)
    assert measured[0] == pytest.approx(measured[1])
    unfitted = SteerVec(Points.of(both[0], prompts.n_pos), dtype=torch.float64)
    assert measured[0] > evaluate(both[0], unfitted, prompts).E0


def test_what_reads_weights_of_a_layer_that_is_elsewhere_stops_and_says_so(both):
    _, split = both
    m = torch.ones(split.cfg.d_model, dtype=torch.float64)
    assert head_features(split, m, layers=[0]).isfinite().all()
    with pytest.raises(NotImplementedError, match="meta device"):
        head_features(split, m)
    with pytest.raises(NotImplementedError, match="meta tensor"):
        fingerprint(split)
