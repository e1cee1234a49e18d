"""Which heads matter, measured on data: path patching, direct logit attribution, steering at one token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import kv_heads
from helpers.models.norms import Norm
from helpers.models.run import last_logits, read_activations
from helpers.observable_propagation.features import head_weights
from helpers.observable_propagation.observables import Observable


def path_patching(
    model: TransformerBridge,
    clean: Int[Tensor, "pair pos"],
    corrupted: Int[Tensor, "pair pos"],
    observable: Observable,
    *,
    values_only: bool = False,
    batch_size: int = 64,
) -> Float[Tensor, "pair layer head"]:
    """Direct effect of every head on an observable at the last token: clean − patched, in nats (section 6.5).

    For one head the whole input of ln1, all tokens, is that of the corrupted prompt; queries, keys and values are made from
    it. Everything else stays as in the clean run but the final norm, which is computed again. A head's output depends on
    nothing but that input, so the patched head writes what it wrote in the corrupted run: two runs serve all heads.

    Args:
        model: whose heads.
        clean, corrupted: prompts of one length; row i of one is patched into row i of the other.
        observable: what is measured.
        values_only: keep the clean run's attention scores and take only the values from the corrupted run.
        batch_size: prompts that go through the model at once.

    Raises:
        ValueError: prompts whose shapes differ.
    """
    if clean.shape != corrupted.shape:
        raise ValueError(
            f"clean prompts are {tuple(clean.shape)} and corrupted ones {tuple(corrupted.shape)}; they must match one to one."
        )
    layers = range(model.cfg.n_layers)
    names = ["ln_final.hook_in", *(f"blocks.{layer}.attn.hook_z" for layer in layers)]
    if values_only:
        names += [
            f"blocks.{layer}.attn.{hook}" for layer in layers for hook in ("hook_pattern", "hook_v")
        ]
    here, _ = read_activations(model, clean, names, batch_size=batch_size)
    there, _ = read_activations(model, corrupted, names, batch_size=batch_size)
    norm, m = Norm.of(model, "ln_final"), observable.vector(model)
    x = here["ln_final.hook_in"][:, -1]
    effects = []
    for layer in layers:
        name = f"blocks.{layer}.attn."
        if values_only:
            scores = here[name + "hook_pattern"][:, :, -1]
            z = torch.einsum("bhs,bshe->bhe", scores, _every_head(model, there[name + "hook_v"]))
        else:
            z = there[name + "hook_z"][:, -1]
        change = torch.einsum(
            "bhe,hem->bhm", z - here[name + "hook_z"][:, -1], head_weights(model, layer)[1]
        )
        effects.append((norm(x)[:, None] - norm(x[:, None] + change)) @ m)
    return torch.stack(effects, dim=1)


@dataclass(frozen=True)
class Attribution:
    """An observable at the last token, split into what each part of the model wrote there; the parts sum to ``total``.

    The final norm's σ is held at its value on each prompt, so that parts add up. In nats.

    Attributes:
        heads: one a head and source token, its value bias included.
        attention_biases: b_O of each layer.
        mlps: each layer's MLP.
        embedding: the residual stream before the first layer.
        constant: the final norm's bias and the unembedding's.
        total: the observable itself.
    """

    heads: Float[Tensor, "batch layer head source"]
    attention_biases: Float[Tensor, "batch layer"]
    mlps: Float[Tensor, "batch layer"]
    embedding: Float[Tensor, " batch"]
    constant: float
    total: Float[Tensor, " batch"]


def direct_attribution(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    observable: Observable,
    *,
    batch_size: int = 64,
) -> Attribution:
    """Direct logit attribution (Nanda, 2022), per head and source token, final norm included."""
    layers = range(model.cfg.n_layers)
    names = [
        "ln_final.hook_in",
        "blocks.0.hook_resid_pre",
        *(f"blocks.{layer}.hook_mlp_out" for layer in layers),
    ]
    names += [
        f"blocks.{layer}.attn.{hook}" for layer in layers for hook in ("hook_pattern", "hook_v")
    ]
    kept, logits = read_activations(model, tokens, names, batch_size=batch_size)
    norm, m = Norm.of(model, "ln_final"), observable.vector(model)
    y = norm.fixed(m, kept["ln_final.hook_in"][:, -1])  # [batch d_model]
    heads, biases = [], []
    for layer in layers:
        through = torch.einsum("hem,bm->bhe", head_weights(model, layer)[1], y)
        values = _every_head(model, kept[f"blocks.{layer}.attn.hook_v"])
        heads.append(
            torch.einsum(
                "bhs,bshe,bhe->bhs",
                kept[f"blocks.{layer}.attn.hook_pattern"][:, :, -1],
                values,
                through,
            )
        )
        b_O = model.blocks[layer].attn.b_O
        biases.append(y.new_zeros(len(y)) if b_O is None else y @ b_O)
    return Attribution(
        heads=torch.stack(heads, 1),
        attention_biases=torch.stack(biases, 1),
        mlps=torch.stack(
            [(kept[f"blocks.{layer}.hook_mlp_out"][:, -1] * y).sum(-1) for layer in layers], 1
        ),
        embedding=(kept["blocks.0.hook_resid_pre"][:, -1] * y).sum(-1),
        constant=float(observable.bias(model) + (0 if norm.bias is None else norm.bias @ m)),
        total=observable.measure(logits),
    )


@contextmanager
def added(
    model: TransformerBridge, layer: int, position: int, vectors: Float[Tensor, "*batch d_model"]
) -> Iterator[TransformerBridge]:
    """The model with vectors added to one token's resid_pre of a layer, inside a ``with`` block (section 6.9).

    Args:
        model: whatever happens in the block, it is as before afterwards.
        layer: the vectors reach its attention, its MLP, and everything after.
        position: of the token; negative ones count from the end.
        vectors: one for all prompts, or one a prompt.

    Raises:
        ValueError: no such layer; inside the block, no such position.
    """
    if not 0 <= layer < model.cfg.n_layers:
        raise ValueError(
            f"layer {layer} is not there: layers run from 0 to {model.cfg.n_layers - 1}."
        )

    def add(resid: Tensor, hook) -> Tensor:
        if not -resid.shape[1] <= position < resid.shape[1]:
            raise ValueError(
                f"position {position} is not there: the prompt has {resid.shape[1]} tokens."
            )
        resid = resid.clone()
        resid[:, position] += vectors
        return resid

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", add)]):
        yield model


@torch.no_grad()
def steer(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    layer: int,
    position: int,
    vectors: Float[Tensor, "vector d_model"],
    *,
    batch_size: int = 64,
) -> Float[Tensor, "vector batch d_vocab"]:
    """Last-position logits of every prompt with every vector added, as many of them in one batch as ``batch_size`` allows."""
    logits = []
    rows = torch.cartesian_prod(torch.arange(len(vectors)), torch.arange(len(tokens)))
    for chunk in rows.split(batch_size):
        which, prompt = chunk.to(tokens.device).unbind(1)
        with added(model, layer, position, vectors[which]):
            logits.append(last_logits(model, tokens[prompt]))
    return torch.cat(logits).view(len(vectors), len(tokens), -1)


def _every_head(
    model: TransformerBridge, values: Float[Tensor, "batch pos kv_head d_head"]
) -> Float[Tensor, "batch pos head d_head"]:
    """Each head's own copy of the values that it shares (grouped-query attention)."""
    return values.repeat_interleave(model.cfg.n_heads // kv_heads(model), dim=2)
