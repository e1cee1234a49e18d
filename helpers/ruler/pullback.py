"""The gradient of an observable with respect to the residual stream, averaged over texts.

The mean over texts of ∂(n·logits)/∂h at the last token in front of a layer: the row of an averaged
Jacobian that an observable picks, as a Jacobian lens has them for all tokens. With attention
patterns and nothing else held fixed it is the sum of the second paper's path vectors, over all
paths that start there (:func:`all_paths`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models import checks
from helpers.models.checks import checked, whole
from helpers.models.formulas import facts, require
from helpers.models.hooks import hooked
from helpers.models.norms import Norm
from helpers.models.resume import Run
from helpers.observable_propagation.paths import Component, Path


@checked
def pullback(
    model: TransformerBridge,
    run: Run,
    m: Float[Tensor, "*n d_model"],
    layers: Sequence[int],
    *,
    frozen: bool = False,
    batch_size: int = 128,
) -> Float[Tensor, "layer *n d_model"]:
    """Mean gradient of m·ln_final(x) with respect to the stream in front of layers.

    Args:
        run: of the texts, each up to the token at whose end the logits are read.
        m: observables as vectors, W_U n.
        layers: in rising order.
        frozen: hold attention patterns fixed.
        batch_size: rows in one pass, an observable on a text each.

    Returns:
        In nats per unit of the stream.

    Raises:
        TypeError, ValueError: layers that are not rising or not there; observables of another
            width; a model whose logits are not its final norm and W_U.
    """
    require(model, "norms", "logits")
    m, size = checks.vectors("m", m, model.cfg.d_model), whole("batch_size", batch_size)
    found, n_texts = checks.rows(layers, model.cfg.n_layers, "layer").tolist(), len(run.tokens)
    if found != sorted(set(found)):
        raise ValueError(f"layers must be rising, not {found}.")
    layers = found
    flat, final = m.reshape(-1, m.shape[-1]), Norm.of(model, "ln_final")
    sums = flat.new_zeros(len(layers), *flat.shape)
    pairs = torch.cartesian_prod(torch.arange(len(flat)), torch.arange(n_texts))
    for pair in pairs.to(flat.device).split(size):
        observable, text = pair.unbind(1)
        # A zero is added to the stream at each layer: its gradient is the stream's.
        zeros = flat.new_zeros(len(layers), len(pair), flat.shape[-1]).requires_grad_()
        hooks = []
        for zero, layer in zip(zeros[1:], layers[1:]):
            hooks.append((f"blocks.{layer}.hook_resid_pre", partial(_add, zero=zero)))
        # Queries and keys as constants make the pattern one, in every architecture.
        for layer in range(layers[0], model.cfg.n_layers) if frozen else ():
            hooks += [(f"blocks.{layer}.attn.{name}", _detach) for name in ("hook_q", "hook_k")]
        with torch.enable_grad(), hooked(model, hooks):
            ends = run.edited(model, layers[0], -1, zeros[0].__add__, text)
            (gradient,) = torch.autograd.grad((final(ends) * flat[observable]).sum(), zeros)
        sums.index_add_(1, observable, gradient)
    return (sums / n_texts).view(len(layers), *m.shape)


def _add(x: Tensor, hook, zero: Tensor) -> Tensor:
    return x + zero[:, None]


def _detach(x: Tensor, hook) -> Tensor:
    return x.detach()


def all_paths(model: TransformerBridge, layer: int) -> Iterator[Path]:
    """Every path from the stream in front of a layer to the end, the direct one first.

    There are (2 + 2·heads) to the power of the layers left: for tiny models only.

    Raises:
        TypeError, ValueError: no such layer.
    """
    whole("layer", layer, 0, model.cfg.n_layers + 1)
    if layer == model.cfg.n_layers:
        yield ()
        return
    heads = [(Component(layer, head),) for head in range(model.cfg.n_heads)]
    mlp = (Component(layer),)
    here: list[Path] = [(), *heads, mlp]
    if not facts(model).parallel:  # the MLP reads what heads wrote
        here += [(*head, *mlp) for head in heads]
    for start in here:
        for rest in all_paths(model, layer + 1):
            yield (*start, *rest)
