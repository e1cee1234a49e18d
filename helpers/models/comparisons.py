"""Comparisons of the self-check: what a formula gives, and what the model's modules gave in a run.

Each function returns the two tensors, the formula's first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import isclose

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from helpers.models.blocks import (
    mlp_output,
    mlp_reads,
    name_before,
    norm_after,
    norm_before,
    per_head,
)
from helpers.models.hooks import hooked
from helpers.models.norms import Norm, tolerance

HOOKS = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_z", "attn.hook_pattern"]
NORMS = ["ln1", "ln1_post", "ln2", "ln2_post"]

Kept = Mapping[str, Tensor]  # activations of the run, by hook
Pair = tuple[Tensor, Tensor]


def run_once(model: TransformerBridge) -> tuple[Kept, Int[Tensor, "1 pos"], Tensor]:
    """Activations of a run over a few tokens, the tokens, and their logits."""
    names = ["ln_final.hook_in", "ln_final.hook_out"]
    for layer, block in enumerate(model.blocks):
        names += [f"blocks.{layer}.{hook}" for hook in HOOKS]
        if name_before(model, layer, "mlp") is None:
            names.append(f"blocks.{layer}.mlp.hook_in")
        for norm in (norm for norm in NORMS if norm in block.submodules):
            names += [f"blocks.{layer}.{norm}.hook_in", f"blocks.{layer}.{norm}.hook_out"]
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook, name: str) -> None:
        if name in kept:  # as in nanochat, whose final norm comes after the embedding too
            raise ValueError(f"{name} is reached twice in a run")
        kept[name] = value.clone()  # some models add to the residual stream in place

    there = model.hook_dict
    hooks = [(name, partial(keep, name=name)) for name in names if name in there]
    first = model.cfg.d_vocab // 3  # not at the start, where special tokens are
    tokens = torch.arange(first, first + 8, device=model.W_U.device)[None] % model.cfg.d_vocab
    with hooked(model, hooks):
        return kept, tokens, model.original_model(input_ids=tokens, use_cache=False).logits


def error_of(ours: Tensor, theirs: Tensor) -> float:
    """Largest relative error of a token; NaN counts as infinite."""
    ours, theirs = ours.double().flatten(2), theirs.double().flatten(2)
    error = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp_min(1e-30)
    return error.nan_to_num(nan=torch.inf).max().item()


def norm_output(model: TransformerBridge, kept: Kept, name: str) -> Pair:
    """What a norm gives."""
    x, out = kept[f"{name}.hook_in"], kept[f"{name}.hook_out"]
    return Norm.of(model, name)(x).view_as(out), out


def written(
    model: TransformerBridge, kept: Kept, layer: int, part: str, scale: float = 1.0
) -> Pair:
    """What attention or the MLP writes."""
    block, after = f"blocks.{layer}.", norm_after(model, layer, part)
    if part == "attn":
        attention = model.blocks[layer].attn
        out = torch.einsum("bphe,hem->bpm", kept[block + "attn.hook_z"], attention.W_O)
        out = out if attention.b_O is None else out + attention.b_O
    else:
        x, before = kept[mlp_reads(model, layer)], norm_before(model, layer, "mlp")
        x = x.view_as(kept[block + "hook_resid_pre"])  # OPT flattens it
        out = mlp_output(model, layer, x if before is None else before(x))
    out = out if after is None else after(out)
    return scale * out, kept[block + ("hook_attn_out" if part == "attn" else "hook_mlp_out")]


def head_outputs(model: TransformerBridge, kept: Kept, layer: int) -> Pair:
    """z of a layer's heads."""
    attention, before = model.blocks[layer].attn, norm_before(model, layer, "attn")
    x = kept[f"blocks.{layer}.hook_resid_pre"]
    x = x if before is None else before(x)
    v = torch.einsum("bsm,hme->bshe", x, attention.W_V)
    v = per_head(model, v if attention.b_V is None else v + attention.b_V, dim=2)
    pattern = kept[f"blocks.{layer}.attn.hook_pattern"]
    return torch.einsum("bhds,bshe->bdhe", pattern, v), kept[f"blocks.{layer}.attn.hook_z"]


def score_sums(kept: Kept, layer: int) -> Pair:
    """Sums of attention scores, which should be 1."""
    total = kept[f"blocks.{layer}.attn.hook_pattern"].sum(-1)
    return total, torch.ones_like(total)


def reads_one_stream(model: TransformerBridge, kept: Kept) -> bool:
    """Whether attention and MLP of a block read the same stream."""
    try:
        ours, theirs = mlp_input(model, kept, 0, parallel=True)
        return error_of(ours, theirs) <= tolerance(theirs.dtype)
    except Exception:  # the comparison that follows says why
        return False


def mlp_input(model: TransformerBridge, kept: Kept, layer: int, parallel: bool) -> Pair:
    """What the MLP reads, or the norm in front of it."""
    stream = kept[f"blocks.{layer}.hook_resid_pre"]
    if not parallel:
        stream = stream + kept[f"blocks.{layer}.hook_attn_out"]
    return stream, kept[mlp_reads(model, layer)].view_as(stream)


def next_stream(model: TransformerBridge, kept: Kept, layer: int) -> Pair:
    """The stream behind a block."""
    block, last = f"blocks.{layer}.", layer == model.cfg.n_layers - 1
    parts = [kept[block + hook] for hook in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out")]
    after = kept["ln_final.hook_in" if last else f"blocks.{layer + 1}.hook_resid_pre"]
    return parts[0] + parts[1] + parts[2].view_as(after), after


def logits_of(
    model: TransformerBridge, kept: Kept, logits: Tensor, scale: float, cap: float | None
) -> Pair:
    """Logits of the run, or others in their place."""
    x = Norm.of(model, "ln_final")(kept["ln_final.hook_in"])
    out = scale * (x @ model.W_U + model.b_U)
    return out if cap is None else cap * (out / cap).tanh(), logits


def resumed_logits(model: TransformerBridge, tokens: Int[Tensor, "1 pos"], logits: Tensor) -> Pair:
    """Logits of the later tokens, run on the keys and values of the earlier ones alone."""
    first, again = DynamicCache(), DynamicCache()
    model.original_model(input_ids=tokens[:, :4], past_key_values=first, use_cache=True)
    for layer in range(model.cfg.n_layers):
        again.update(first.layers[layer].keys, first.layers[layer].values, layer)
    later = model.original_model(input_ids=tokens[:, 4:], past_key_values=again, use_cache=True)
    return later.logits, logits[:, 4:]


def scale_and_cap(
    model: TransformerBridge, kept: Kept, logits: Tensor
) -> tuple[float, float | None]:
    """What multiplies the logits, under a cap if the configuration names one that fits."""
    config = model.original_model.config.get_text_config()
    named = (getattr(config, name, None) for name in ("final_logit_softcapping", "logits_soft_cap"))
    for cap in filter(None, named):
        before = (cap * (logits.double() / cap).atanh()).to(logits)
        scale = ratio_of(model, partial(logits_of, model, kept, before, 1.0, None))
        if error_of(*logits_of(model, kept, logits, scale, cap)) <= tolerance(logits.dtype):
            return scale, cap
    return ratio_of(model, partial(logits_of, model, kept, logits, 1.0, None)), None


def ratio_of(model: TransformerBridge, both: Callable[[], Pair]) -> float:
    """The factor between a formula's result and the model's: 1 or one of its configuration's."""
    try:
        ours, theirs = both()
    except Exception:  # the comparison that follows says why
        return 1.0
    near = tolerance(theirs.dtype) / 10
    ours, theirs = ours.double(), theirs.double()
    factor = ((ours * theirs).sum() / (ours * ours).sum()).item()
    exact = [1.0]
    for value in model.original_model.config.get_text_config().to_dict().values():
        if isinstance(value, (int, float)) and value:
            exact += [float(value), 1 / value]
    closest = min(exact, key=lambda value: abs(value - factor))
    # What no configuration names is taken as it was measured.
    return closest if isclose(closest, factor, rel_tol=near) else factor
