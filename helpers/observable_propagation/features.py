"""Feature vectors of attention heads: what a head reads from its input for the sake of an observable.

For an observable m = W_U n and a head with W_OV = W_V W_O (inputs are rows, as in TransformerLens), the head moves
x·y to the output, where y = W_V (W_O m) (section 4.1, observable propagation). The d_model × d_model matrix W_OV is never
formed: m goes through W_O into [d_head], and from there through W_V.

Order of the norms: ln_final is nearest to the observable, so its weight acts on m before W_OV; the head's own ln1 acts last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import kv_heads
from helpers.models.norms import IgnoreNorms, Norm, Norms

IGNORE = IgnoreNorms()


def head_weights(
    model: TransformerBridge, layer: int
) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head d_model"]]:
    """W_V and W_O of a layer, one of each a head: heads that share a key/value head get its W_V each."""
    attention = model.blocks[layer].attn
    return _per_head(model, attention.W_V), attention.W_O


def through_heads(
    model: TransformerBridge,
    layer: int,
    y: Float[Tensor, "*n d_model"],
    *,
    norms: Norms = IGNORE,
    own_norm: bool = True,
) -> Float[Tensor, "*n head d_model"]:
    """One feature vector a head of a layer, for a vector y that reads what the heads add to the residual stream.

    Attention scores are held fixed and left out: a source token's share is score · (feature · x) (section 4.3.1).

    Args:
        model: whose heads.
        layer: which layer.
        y: in the residual stream, after the layer's attention.
        norms: how the layer's ln1 is dealt with.
        own_norm: if False the vectors read the output of ln1; if True (default) they read the residual stream before it.
    """
    W_V, W_O = head_weights(model, layer)
    features = torch.einsum("hme,...he->...hm", W_V, torch.einsum("hem,...m->...he", W_O, y))
    return (
        norms.pull_back(Norm.of(model, f"blocks.{layer}.ln1"), features) if own_norm else features
    )


def head_features(
    model: TransformerBridge,
    m: Float[Tensor, "*n d_model"],
    *,
    norms: Norms = IGNORE,
    own_norm: bool = True,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "*n layer head d_model"]:
    """Feature vectors of every head of the model, for its direct effect on observables.

    y = ln1ᵀ W_OVᵀ ln_finalᵀ m, in the order in which the observable goes back (section 4.4), where each norm is as
    ``norms`` says. Biases do not enter a gradient; see :func:`head_biases` for the constant that they add.

    Args:
        model: whose heads.
        m: observables as vectors, see :meth:`Observable.vector`.
        norms: ``IgnoreNorms()``, ``NormWeights({...})`` or ``NormGradients({...})``.
        own_norm: if False the vectors read the output of each layer's ln1, if True its input.
        layers: which layers; all if not given.

    Returns:
        In nats per unit of the residual stream (or of ln1's output), per unit of attention score.
    """
    y = norms.pull_back(Norm.of(model, "ln_final"), m)
    chosen = range(model.cfg.n_layers) if layers is None else layers
    return torch.stack(
        [through_heads(model, layer, y, norms=norms, own_norm=own_norm) for layer in chosen], dim=-3
    )


def head_biases(
    model: TransformerBridge, y: Float[Tensor, "*n d_model"]
) -> Float[Tensor, "*n layer head"]:
    """y·(b_V W_O): the constant that a head adds for its value bias; scores sum to 1, so no score enters.

    Args:
        model: whose heads; 0 where values have no bias.
        y: reads the residual stream after the head, final norm included.
    """
    constants = []
    for layer in range(model.cfg.n_layers):
        attention = model.blocks[layer].attn
        if attention.b_V is None:
            constants.append(y.new_zeros(*y.shape[:-1], model.cfg.n_heads))
        else:
            constants.append(
                torch.einsum("he,hem,...m->...h", _per_head(model, attention.b_V), attention.W_O, y)
            )
    return torch.stack(constants, dim=-2)


@dataclass(frozen=True)
class SVD:
    """Singular values and vectors of each head's W_OV, largest first.

    Attributes:
        values: no unit.
        read: unit vectors in the head's input, the paper's right singular vectors (section 6.8).
        write: unit vectors in the head's output.
    """

    values: Float[Tensor, "head d_head"]
    read: Float[Tensor, "head d_head d_model"]
    write: Float[Tensor, "head d_head d_model"]


def ov_svd(model: TransformerBridge, layer: int) -> SVD:
    """Singular value decomposition of W_OV for each head of a layer, W_OV = readᵀ · diag(values) · write.

    W_V = Q_V R_V and W_Oᵀ = Q_O R_O have d_head columns, so only the small d_head × d_head matrix R_V R_Oᵀ is decomposed.
    """
    W_V, W_O = head_weights(model, layer)
    Q_V, R_V = torch.linalg.qr(W_V)
    Q_O, R_O = torch.linalg.qr(W_O.mT)
    left, values, right = torch.linalg.svd(R_V @ R_O.mT)
    return SVD(values, read=(Q_V @ left).mT, write=(Q_O @ right.mT).mT)


def _per_head(
    model: TransformerBridge, weight: Float[Tensor, "kv_head ..."]
) -> Float[Tensor, "head ..."]:
    shared = model.cfg.n_heads // kv_heads(
        model
    )  # grouped-query attention: consecutive heads share values
    return weight.repeat_interleave(shared, dim=0) if shared > 1 else weight
