"""Models with layers in several places (``device_map``): what works, and what stops with an error.

Without several GPUs the other place is the disk, from which accelerate fetches a layer's weights
when it is called.
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
    # A map of every part without parts of its own, but of layers as a whole.
    paths = {module: path for path, module in hf.named_modules()}
    layers = [paths[block] for block in blocks(hf)]
    places = dict.fromkeys(layers, "cpu") | {layers[-1]: "disk"}
    for module, path in paths.items():
        inside = path.startswith(tuple(f"{layer}." for layer in layers))
        if path and not inside and not [*module.children()]:
            places[path] = "cpu"
    how = {"dtype": torch.float64, "attn_implementation": "eager"}
    how |= {"device_map": places, "offload_folder": folder / "offload"}
    split = type(hf).from_pretrained(folder, **how)
    assert set(split.hf_device_map.values()) == {"cpu", "disk"}
    boot = {"tokenizer": tokenizer, "dtype": torch.float64}
    whole = TransformerBridge.boot_transformers(name, hf_model=hf, device="cpu", **boot)
    return freeze(whole), freeze(TransformerBridge.boot_transformers(name, hf_model=split, **boot))


@pytest.mark.slow
def test_logits_and_a_fit_are_those_of_the_model_in_one_place(both):
    prompts = Prompts.of(both[0], ["w1 w2 w3", "w4 w5 w6"], ["w10", "w11"], ["w13", "w14"])
    assert both[1].cfg.n_devices == 2
    logits, learned, measured = [], [], []
    for model in both:
        logits.append(last_logits(model, prompts.tokens))
        vectors = SteerVec(Points.of(model, prompts.n_pos), dtype=torch.float64)
        before = evaluate(model, vectors, prompts).E0
        fit(model, vectors, prompts, Objective(margin=0.1), learning_rate=0.05, epochs=10)
        learned.append(vectors.vec())
        measured.append(evaluate(model, vectors, prompts).E0)
    torch.testing.assert_close(*logits)
    torch.testing.assert_close(*learned)
    assert measured[0] == pytest.approx(measured[1]) and measured[0] > before


def test_reading_weights_of_a_layer_that_is_elsewhere_is_an_error(both):
    _, split = both
    m = torch.ones(split.cfg.d_model, dtype=torch.float64)
    assert head_features(split, m, layers=[0]).isfinite().all()
    with pytest.raises(NotImplementedError, match="meta device"):
        head_features(split, m)
    with pytest.raises(NotImplementedError, match="meta tensor"):
        fingerprint(split)
