"""What lies around a block's attention and MLP, in models of many families.

A part ("attn" or "mlp") reads the residual stream through the norm before it, if there is one, and
writes to it through the norm after it, if there is one, times a residual multiplier
(:mod:`helpers.models.formulas` measures that and confirms the rest).
"""

from __future__ import annotations

from inspect import signature

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import vectors, whole
from helpers.models.hooks import alone
from helpers.models.norms import Norm


def kv_heads(model: TransformerBridge) -> int:
    """Number of key/value heads: fewer than ``n_heads`` in grouped-query attention."""
    return getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads


def per_head(model: TransformerBridge, values: Tensor, dim: int = 0) -> Tensor:
    """Expand an axis of key/value heads to one of heads; consecutive heads share theirs."""
    shared = model.cfg.n_heads // kv_heads(model)
    return values.repeat_interleave(shared, dim) if shared > 1 else values


def name_before(model: TransformerBridge, layer: int, part: str) -> str | None:
    """Name of the norm in front of a part: ln1, ln2, the ln1 that both share, or none."""
    norms = _block(model, layer, part).submodules
    if part == "mlp" and "ln2" in norms:
        return f"blocks.{layer}.ln2"
    return f"blocks.{layer}.ln1" if "ln1" in norms else None


def mlp_reads(model: TransformerBridge, layer: int) -> str:
    """The hook at what the MLP reads: its norm's input, or its own where it has no norm."""
    return f"{name_before(model, layer, 'mlp') or f'blocks.{layer}.mlp'}.hook_in"


def norm_before(model: TransformerBridge, layer: int, part: str) -> Norm | None:
    """The norm in front of a part."""
    name = name_before(model, layer, part)
    return None if name is None else Norm.of(model, name)


def norm_after(model: TransformerBridge, layer: int, part: str) -> Norm | None:
    """The norm between a part's output and the residual stream, as in Gemma 2 and OLMo-2."""
    name = "ln1_post" if part == "attn" else "ln2_post"
    there = name in _block(model, layer, part).submodules
    return Norm.of(model, f"blocks.{layer}.{name}") if there else None


def _block(model: TransformerBridge, layer: int, part: str) -> Module:
    if part not in ("attn", "mlp"):
        raise ValueError(f"part = {part!r} must be 'attn' or 'mlp'.")
    return model.blocks[whole("layer", layer, 0, model.cfg.n_layers)]


def mlp_output(
    model: TransformerBridge, layer: int, x: Float[Tensor, "*batch d_model"]
) -> Float[Tensor, "*batch d_model"]:
    """MLP(x), for x in its own input, behind the norm in front of it."""
    x = vectors("x", x, model.cfg.d_model, like=model.W_U)
    layer = whole("layer", layer, 0, model.cfg.n_layers)
    mlp, x, shape = model.blocks[layer].mlp, x.reshape(-1, 1, x.shape[-1]), x.shape
    with alone(model):
        if mlp.name is None:  # OPT: its layers belong to the block
            activation = model.blocks[layer].original_component.activation_fn
            return mlp.out(activation(getattr(mlp, "in")(x))).reshape(shape)
        # Bloom and MPT add the residual stream in their MLP's module.
        adds = "residual" in signature(mlp.original_component.forward).parameters
        out = mlp(x, torch.zeros_like(x)) if adds else mlp(x)
    return (out[0] if isinstance(out, tuple) else out).reshape(shape)
