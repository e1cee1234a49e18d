"""Feature vectors of attention heads: what each head reads from its input for an observable.

For an observable m = W_U n and a head with W_OV = W_V W_O (inputs are rows, as in
TransformerLens), the head moves x·y to the output, where y = W_V (W_O m) (section 4.1, observable
propagation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.blocks import per_head
from helpers.models.checks import checked, rows, vectors
from helpers.models.formulas import require
from helpers.models.norms import Norm
from helpers.observable_propagation.pull_back import (
    IGNORE,
    Norms,
    head_weights,
    through_heads,
    to_input,
    to_output,
)


@checked
def head_features(
    model: TransformerBridge,
    m: Float[Tensor, "*n d_model"],
    *,
    norms: Norms = IGNORE,
    own_norm: bool = True,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "*n layer head d_model"]:
    """Feature vectors of every head, for its direct effect on observables (section 4.4).

    y = ln1ᵀ W_OVᵀ ln_finalᵀ m: ln_final acts on m first, then a norm after attention where the
    model has one, and the head's own ln1 acts last. Biases do not enter; :func:`head_biases` has
    the constant that they add.

    Args:
        m: observables as vectors, see :meth:`Observable.vector`.
        norms: ``IgnoreNorms()``, ``NormWeights({...})`` or ``NormGradients({...})``.
        own_norm: if False, the vectors read the output of each layer's ln1 instead of its input.
        layers: all if not given.

    Returns:
        In nats per unit of what is read, per unit of attention score.

    Raises:
        ValueError: a model whose heads or stream are not given by these formulas.
    """
    require(model, "norms", "stream")
    y = norms.pull_back(Norm.of(model, "ln_final"), vectors("m", m, model.cfg.d_model))
    features, n = [], model.cfg.n_layers
    for layer in range(n) if layers is None else rows(layers, n, "layer").tolist():
        features.append(through_heads(model, layer, y, norms=norms, own_norm=own_norm))
    return torch.stack(features, dim=-3)


@checked
def head_biases(
    model: TransformerBridge, y: Float[Tensor, "*n d_model"], *, norms: Norms = IGNORE
) -> Float[Tensor, "*n layer head"]:
    """y·(b_V W_O): what each head adds for its value bias, whatever the scores, which sum to 1.

    Args:
        y: reads the residual stream after the head, final norm included.
        norms: how a norm after attention is treated, where there is one.
    """
    require(model, "scores", "values", "attention")
    constants, y = [], vectors("y", y, model.cfg.d_model)
    for layer in range(model.cfg.n_layers):
        attention, own = model.blocks[layer].attn, to_output(model, layer, "attn", y, norms)
        if attention.b_V is None:
            constants.append(y.new_zeros(*y.shape[:-1], model.cfg.n_heads))
        else:
            b_V = per_head(model, attention.b_V)
            constants.append(torch.einsum("he,hem,...m->...h", b_V, attention.W_O, own))
    return torch.stack(constants, dim=-2)


def head_coordinates(
    model: TransformerBridge, layer: int, *, norms: Norms = IGNORE, own_norm: bool = True
) -> Float[Tensor, "head d_head d_model"]:
    """A with A y = the head's feature vector in an orthonormal basis of all that it can read.

    Lengths and cosines of one head's feature vectors are those of the d_head numbers A y. With
    B = ln1ᵀ W_V = Q R, the feature vector B W_O y has the coordinates A y = R W_O y in Q.

    Args:
        norms: how the norms around attention are treated.
        own_norm: if False, those of vectors that read the output of ln1 instead of its input.
    """
    W_V, W_O = head_weights(model, layer)
    columns = to_input(model, layer, "attn", W_V.mT, norms) if own_norm else W_V.mT
    every = torch.eye(model.cfg.d_model).to(W_O)
    return torch.linalg.qr(columns.mT).R @ W_O @ to_output(model, layer, "attn", every, norms).mT


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
    """Singular value decomposition of each head's W_OV = readᵀ · diag(values) · write.

    With W_V = Q_V R_V and W_Oᵀ = Q_O R_O only the d_head × d_head matrix R_V R_Oᵀ is decomposed.
    """
    W_V, W_O = head_weights(model, layer)
    Q_V, R_V = torch.linalg.qr(W_V)
    Q_O, R_O = torch.linalg.qr(W_O.mT)
    left, values, right = torch.linalg.svd(R_V @ R_O.mT)
    return SVD(values, read=(Q_V @ left).mT, write=(Q_O @ right.mT).mT)
