"""Feature vectors of single heads (as paths of one head, in test_paths too), the SVD of W_OV."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from helpers.models.norms import Norm
from helpers.models.run import read_activations
from helpers.observable_propagation.features import (
    head_biases,
    head_coordinates,
    head_features,
    ov_svd,
)
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.pull_back import (
    IgnoreNorms,
    NormWeights,
    head_weights,
    through_heads,
)
from tests.models.families import family

pytestmark = pytest.mark.unit
TOKENS = torch.arange(1, 8)[None]
# GPT-Neo's scores and Llama's norms are computed in 32 bits.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-7}


@pytest.fixture
def m(tiny) -> torch.Tensor:
    return Observable.of(tiny, {"w3": 1, "w5": -1}).vector(tiny)


def read(model, hook: str) -> torch.Tensor:
    """Activations of the prompt at a hook of every layer, [layer ...]."""
    names = [f"blocks.{layer}.{hook}" for layer in range(model.cfg.n_layers)]
    return torch.cat(list(read_activations(model, TOKENS, names)[0].values()))


def test_the_final_norms_weight_acts_before_w_ov_and_the_heads_own_norm_after_it(tiny, m) -> None:
    w_final, w_own = Norm.of(tiny, "ln_final").weight, Norm.of(tiny, "blocks.1.ln1").weight
    W_V, W_O = head_weights(tiny, 1)
    root, W_OV = tiny.cfg.d_model**0.5, W_V @ W_O  # the full matrices
    torch.testing.assert_close(head_features(tiny, m)[1], W_OV @ m)
    features = head_features(tiny, m, norms=NormWeights({"ln_final": 11.0}))[1]
    torch.testing.assert_close(features, root * w_own * (W_OV @ (root / 11 * w_final * m)))
    misplaced = root * w_own * root / 11 * w_final * (W_OV @ m)  # the published code
    assert not torch.allclose(features[2], misplaced[2], rtol=1e-2)


def test_heads_that_share_values_share_them_in_order(tiny) -> None:
    # A head's values on real tokens: W_V of the head itself, wherever it is stored.
    x, z, pattern = map(partial(read, tiny), ("ln1.hook_out", "attn.hook_z", "attn.hook_pattern"))
    W_V, _ = head_weights(tiny, 1)
    b_V = tiny.blocks[1].attn.b_V
    values = torch.einsum("sm,hme->hse", x[1], W_V)
    values = values if b_V is None else values + b_V[:, None]
    ours = torch.einsum("hds,hse->dhe", pattern[1], values)
    torch.testing.assert_close(ours, z[1], **TOLERANCE)
    wrong = torch.einsum("hds,hse->dhe", pattern[1], values.roll(2, dims=0))
    assert not torch.allclose(wrong, z[1], rtol=1e-2, atol=1e-3)


def test_features_on_the_norms_output_and_biases_sum_to_what_each_head_writes(tiny, m) -> None:
    features, biases = head_features(tiny, m, own_norm=False), head_biases(tiny, m)
    x, z, pattern = map(partial(read, tiny), ("ln1.hook_out", "attn.hook_z", "attn.hook_pattern"))
    for layer in range(tiny.cfg.n_layers):
        W_O = head_weights(tiny, layer)[1]
        written = torch.einsum("he,hem,m->h", z[layer, -1], W_O, m)
        linear = torch.einsum("hs,sm,hm->h", pattern[layer, :, -1], x[layer], features[layer])
        torch.testing.assert_close(linear + biases[layer], written, **TOLERANCE)


def test_several_observables_go_back_at_once(tiny, m) -> None:
    both = torch.stack([m, Observable.of(tiny, {"w8": 1}).vector(tiny)])
    together = head_features(tiny, both, norms=NormWeights())
    assert together.shape == (2, tiny.cfg.n_layers, tiny.cfg.n_heads, tiny.cfg.d_model)
    torch.testing.assert_close(together[1], head_features(tiny, both[1], norms=NormWeights()))
    one_layer = head_features(tiny, both, norms=NormWeights(), layers=[1])
    torch.testing.assert_close(one_layer[:, 0], together[:, 1])
    torch.testing.assert_close(through_heads(tiny, 1, both), head_features(tiny, both)[:, 1])


def test_the_decomposition_equals_that_of_the_full_matrix(tiny) -> None:
    for layer in range(tiny.cfg.n_layers):
        W_V, W_O = head_weights(tiny, layer)
        W_OV, svd = W_V @ W_O, ov_svd(tiny, layer)
        torch.testing.assert_close(svd.read.mT * svd.values[:, None] @ svd.write, W_OV)
        torch.testing.assert_close(svd.values, torch.linalg.svdvals(W_OV)[:, : tiny.cfg.d_head])
        unit = torch.eye(tiny.cfg.d_head, dtype=torch.float64).expand(tiny.cfg.n_heads, -1, -1)
        torch.testing.assert_close(svd.read @ svd.read.mT, unit)
        torch.testing.assert_close(svd.write @ svd.write.mT, unit)
        assert not torch.allclose(svd.write.mT * svd.values[:, None] @ svd.read, W_OV, atol=1e-2)


@pytest.mark.parametrize("own_norm", [True, False])
@pytest.mark.parametrize("norms", [IgnoreNorms(), NormWeights()])
def test_coordinates_have_the_inner_products_of_the_feature_vectors(tiny, norms, own_norm) -> None:
    of_features(tiny, norms, own_norm)


# A norm after attention is not the head's own: its weights stay.
@pytest.mark.parametrize("own_norm", [True, False])
def test_coordinates_know_the_norm_after_attention(tokenizer, own_norm) -> None:
    of_features(family("Gemma 3", tokenizer), NormWeights({"blocks.1.ln1_post": 3.0}), own_norm)


def of_features(model, norms, own_norm: bool) -> None:
    how = {"norms": norms, "own_norm": own_norm}
    y = torch.randn(3, 32, dtype=model.W_U.dtype, generator=torch.Generator().manual_seed(3))
    features = through_heads(model, 1, y, **how)  # [3 head d_model]
    coordinates = head_coordinates(model, 1, **how) @ y.T  # [head d_head 3]
    products = torch.einsum("ihm,jhm->hij", features, features)
    assert torch.allclose(coordinates.mT @ coordinates, products)
