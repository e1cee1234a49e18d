"""Feature vectors of single heads against autograd through one path, and their singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from one_path import gradient

from helpers.models.norms import Norm
from helpers.models.run import read_activations
from helpers.observable_propagation.features import head_biases, head_features, ov_svd
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.pull_back import (
    NormGradients,
    NormWeights,
    head_weights,
    through_heads,
)

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 8)[None]
TOLERANCE = {
    "rtol": 1e-5,
    "atol": 1e-7,
}  # GPT-Neo's scores and Llama's norms are computed in 32 bits


def observable(model) -> Observable:
    return Observable.of(model, {"w3": 1, "w5": -1})


def points_and_scores(model, source: int):
    layers = range(model.cfg.n_layers)
    kept, _ = read_activations(
        model,
        TOKENS,
        [
            "ln_final.hook_in",
            *(f"blocks.{i}.ln1.hook_in" for i in layers),
            *(f"blocks.{i}.attn.hook_pattern" for i in layers),
        ],
    )
    points = {f"blocks.{i}.ln1": kept[f"blocks.{i}.ln1.hook_in"][0, source] for i in layers}
    points["ln_final"] = kept["ln_final.hook_in"][0, -1]
    return points, torch.stack(
        [kept[f"blocks.{i}.attn.hook_pattern"][0, :, -1, source] for i in layers]
    )


@pytest.mark.parametrize("source", [3, 4, 6])  # within the window of GPT-Neo's local layer
def test_every_heads_feature_vector_equals_autograd_through_that_head_alone(
    tiny, source: int
) -> None:
    points, scores = points_and_scores(tiny, source)
    features = head_features(tiny, observable(tiny).vector(tiny), norms=NormGradients(points))
    for layer in range(tiny.cfg.n_layers):
        for head in range(tiny.cfg.n_heads):
            expected = gradient(tiny, [(layer, head)], TOKENS, [source, -1], {3: 1.0, 5: -1.0})
            torch.testing.assert_close(
                scores[layer, head] * features[layer, head], expected, **TOLERANCE
            )
            other = scores[layer, head] * features[layer, (head + 1) % tiny.cfg.n_heads]
            assert not torch.allclose(other, expected, rtol=1e-2, atol=1e-4)


def test_without_norms_it_is_the_observable_through_the_full_matrices(tiny) -> None:
    m = observable(tiny).vector(tiny)
    features = head_features(tiny, m)
    for layer in range(tiny.cfg.n_layers):
        W_V, W_O = head_weights(tiny, layer)
        for head in range(tiny.cfg.n_heads):
            torch.testing.assert_close(features[layer, head], (W_V[head] @ W_O[head]) @ m)


def test_the_final_norms_weight_acts_before_w_ov_and_the_heads_own_norm_after_it(tiny) -> None:
    m = observable(tiny).vector(tiny)
    w_final, w_own = Norm.of(tiny, "ln_final").weight, Norm.of(tiny, "blocks.1.ln1").weight
    W_V, W_O = head_weights(tiny, 1)
    W_OV = W_V[2] @ W_O[2]
    root = tiny.cfg.d_model**0.5
    features = head_features(tiny, m, norms=NormWeights({"ln_final": 11.0}))
    torch.testing.assert_close(features[1, 2], root * w_own * (W_OV @ (root / 11 * w_final * m)))
    misplaced = root * w_own * root / 11 * w_final * (W_OV @ m)  # the published code
    assert not torch.allclose(features[1, 2], misplaced, rtol=1e-2)


def test_heads_that_share_values_share_them_in_order(tiny) -> None:
    # A head's values on real tokens: W_V of the head itself, wherever it is stored.
    kept, _ = read_activations(
        tiny,
        TOKENS,
        [f"blocks.1.{name}" for name in ("ln1.hook_out", "attn.hook_z", "attn.hook_pattern")],
    )
    W_V, _ = head_weights(tiny, 1)
    b_V = tiny.blocks[1].attn.b_V
    values = torch.einsum("sm,hme->hse", kept["blocks.1.ln1.hook_out"][0], W_V)
    values = values if b_V is None else values + b_V[:, None]
    z = torch.einsum("hds,hse->dhe", kept["blocks.1.attn.hook_pattern"][0], values)
    torch.testing.assert_close(z, kept["blocks.1.attn.hook_z"][0], **TOLERANCE)
    wrong = torch.einsum(
        "hds,hse->dhe", kept["blocks.1.attn.hook_pattern"][0], values.roll(2, dims=0)
    )
    assert not torch.allclose(wrong, kept["blocks.1.attn.hook_z"][0], rtol=1e-2, atol=1e-3)


def test_features_on_the_norms_output_and_biases_sum_to_what_each_head_writes(tiny) -> None:
    m = observable(tiny).vector(tiny)
    features, biases = head_features(tiny, m, own_norm=False), head_biases(tiny, m)
    for layer in range(tiny.cfg.n_layers):
        name = f"blocks.{layer}."
        kept, _ = read_activations(
            tiny, TOKENS, [name + "ln1.hook_out", name + "attn.hook_z", name + "attn.hook_pattern"]
        )
        written = torch.einsum(
            "he,hem,m->h", kept[name + "attn.hook_z"][0, -1], head_weights(tiny, layer)[1], m
        )
        scores = kept[name + "attn.hook_pattern"][0, :, -1]
        linear = torch.einsum(
            "hs,sm,hm->h", scores, kept[name + "ln1.hook_out"][0], features[layer]
        )
        torch.testing.assert_close(linear + biases[layer], written, **TOLERANCE)


def test_several_observables_go_back_at_once(tiny) -> None:
    m = torch.stack([observable(tiny).vector(tiny), Observable.of(tiny, {"w8": 1}).vector(tiny)])
    together = head_features(tiny, m, norms=NormWeights())
    assert together.shape == (2, tiny.cfg.n_layers, tiny.cfg.n_heads, tiny.cfg.d_model)
    torch.testing.assert_close(together[1], head_features(tiny, m[1], norms=NormWeights()))
    torch.testing.assert_close(
        head_features(tiny, m, norms=NormWeights(), layers=[1])[:, 0], together[:, 1]
    )
    torch.testing.assert_close(through_heads(tiny, 1, m), head_features(tiny, m)[:, 1])


def test_the_decomposition_equals_that_of_the_full_matrix(tiny) -> None:
    for layer in range(tiny.cfg.n_layers):
        W_V, W_O = head_weights(tiny, layer)
        svd = ov_svd(tiny, layer)
        torch.testing.assert_close(svd.read.mT * svd.values[:, None] @ svd.write, W_V @ W_O)
        torch.testing.assert_close(
            svd.values, torch.linalg.svdvals(W_V @ W_O)[:, : tiny.cfg.d_head]
        )
        unit = torch.eye(tiny.cfg.d_head, dtype=torch.float64).expand(tiny.cfg.n_heads, -1, -1)
        torch.testing.assert_close(svd.read @ svd.read.mT, unit)
        torch.testing.assert_close(svd.write @ svd.write.mT, unit)
        assert not torch.allclose(
            svd.write.mT * svd.values[:, None] @ svd.read, W_V @ W_O, atol=1e-2
        )
