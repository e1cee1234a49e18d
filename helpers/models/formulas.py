"""A loaded model's self-check: do the helpers' formulas give what its own modules give?

Helpers write a model's norms, heads and unembedding out. Architectures differ there in more ways
than their configurations tell, so a run over a few tokens compares each formula with the modules.
A helper refuses if a formula that it needs does not hold; interventions need none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import isclose
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

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

FORMULAS = {
    "norms": "w ⊙ Px/σ(x) + b is not what a norm gives",
    "values": "pattern · (norm(x) W_V + b_V) is not the z of the heads",
    "attention": "z W_O + b_O, through any norm after it, is not what attention writes",
    "mlp": "MLP(norm(x)), through any norm after it, is not what the MLP writes",
    "scores": "the attention scores of a token do not sum to 1",
    "stream": "stream + attention + MLP is not the stream after the block",
    "logits": "ln_final(x) W_U + b_U, scaled and capped, are not the logits",
}
HOOKS = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_z", "attn.hook_pattern"]
NORMS = ["ln1", "ln1_post", "ln2", "ln2_post"]

Kept = Mapping[str, Tensor]  # activations of the run, by hook


@dataclass(frozen=True)
class Facts:
    """What the self-check found.

    Attributes:
        faults: formulas that do not hold, with where and by how much.
        scales: residual multipliers of "attn" and "mlp", 1 in most models.
        parallel: whether the MLP reads the stream in front of its layer's attention.
        logit_scale: what multiplies ln_final(x) W_U + b_U.
        logit_cap: c where the logits are c·tanh(·/c); None without a cap.
    """

    faults: Mapping[str, str]
    scales: Mapping[str, float] = field(default_factory=lambda: {"attn": 1.0, "mlp": 1.0})
    parallel: bool = False
    logit_scale: float = 1.0
    logit_cap: float | None = None


_known: WeakKeyDictionary[TransformerBridge, Facts] = WeakKeyDictionary()


def facts(model: TransformerBridge) -> Facts:
    """What the self-check found; ``freeze`` has it run, and else the first helper that asks."""
    if model not in _known:
        _known[model] = check(model)
    return _known[model]


def require(model: TransformerBridge, *formulas: str) -> Facts:
    """What the self-check found, if these formulas hold.

    Raises:
        ValueError: one that does not; names the model, the formula and its error.
    """
    found = facts(model)
    for formula in formulas:
        if formula in found.faults:
            raise ValueError(
                f"{model.cfg.model_name}: {FORMULAS[formula]} ({found.faults[formula]}), and what "
                "is asked for would be computed by it. Interventions work on this model."
            )
    return found


@torch.no_grad()
def check(model: TransformerBridge) -> Facts:
    """Compare every formula with the model's modules, on eight tokens.

    Raises:
        RuntimeError: hooks are on the model, which would be taken for the model itself.
    """
    on = (hook for point in model.hook_dict.values() for hook in point.fwd_hooks)
    if not all(hook.is_permanent for hook in on):  # permanent ones are the bridge's own
        raise RuntimeError("call helpers.models.load.freeze(model) before hooks are put on it.")
    faults: dict[str, str] = {}
    try:
        kept, logits = _run(model)
    except Exception as error:  # whatever a model raises that takes more than tokens
        return Facts(dict.fromkeys(FORMULAS, f"in a run on tokens alone: {error}"))

    def holds(formula: str, where: str, both: Callable[[], tuple[Tensor, Tensor]]) -> None:
        try:
            ours, theirs = both()
            error = _error(ours, theirs)
            wrong = "" if error <= tolerance(theirs.dtype) else f"relative error {error:.2g}"
        except Exception as problem:  # whatever a missing part or hook raises
            wrong = str(problem).split("\n")[0] or type(problem).__name__
        if wrong:
            faults.setdefault(formula, f"{where}: {wrong}")

    scales: dict[str, float] = {}
    parallel = _parallel(model, kept)
    for layer in range(model.cfg.n_layers):
        where = f"layer {layer}"
        for norm in NORMS:
            if norm in model.blocks[layer].submodules:
                name = f"blocks.{layer}.{norm}"
                holds("norms", name, partial(_norm, model, kept, name))
        for part, formula in (("attn", "attention"), ("mlp", "mlp")):
            if layer == 0:
                scales[part] = _ratio(partial(_written, model, kept, 0, part))
            holds(formula, where, partial(_written, model, kept, layer, part, scales[part]))
        holds("mlp", f"{where}, its input", partial(_mlp_input, model, kept, layer, parallel))
        holds("values", where, partial(_values, model, kept, layer))
        holds("scores", where, partial(_scores, kept, layer))
        holds("stream", where, partial(_stream, model, kept, layer))
    holds("norms", "ln_final", partial(_norm, model, kept, "ln_final"))
    scale, cap = _logit_scale(model, kept, logits)
    holds("logits", "at the end", partial(_logits, model, kept, logits, scale, cap))
    if clip := getattr(model.original_model.config, "clip_qkv", None):
        faults.setdefault("values", f"they are clipped at {clip}")
    return Facts(faults, scales, parallel, scale, cap)


def _run(model: TransformerBridge) -> tuple[Kept, Tensor]:
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
    tokens = torch.arange(first, first + 8, device=model.W_U.device)[None]
    with hooked(model, hooks):
        return kept, model.original_model(input_ids=tokens, use_cache=False).logits


def _error(ours: Tensor, theirs: Tensor) -> float:
    """Largest relative error of a token; NaN counts as infinite."""
    ours, theirs = ours.double().flatten(2), theirs.double().flatten(2)
    error = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp_min(1e-30)
    return error.nan_to_num(nan=torch.inf).max().item()


def _norm(model: TransformerBridge, kept: Kept, name: str) -> tuple[Tensor, Tensor]:
    x, out = kept[f"{name}.hook_in"], kept[f"{name}.hook_out"]
    return Norm.of(model, name)(x).view_as(out), out


def _written(
    model: TransformerBridge, kept: Kept, layer: int, part: str, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """What attention or MLP writes, by its formula and in the run."""
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


def _values(model: TransformerBridge, kept: Kept, layer: int) -> tuple[Tensor, Tensor]:
    attention, before = model.blocks[layer].attn, norm_before(model, layer, "attn")
    x = kept[f"blocks.{layer}.hook_resid_pre"]
    x = x if before is None else before(x)
    v = torch.einsum("bsm,hme->bshe", x, attention.W_V)
    v = per_head(model, v if attention.b_V is None else v + attention.b_V, dim=2)
    pattern = kept[f"blocks.{layer}.attn.hook_pattern"]
    return torch.einsum("bhds,bshe->bdhe", pattern, v), kept[f"blocks.{layer}.attn.hook_z"]


def _scores(kept: Kept, layer: int) -> tuple[Tensor, Tensor]:
    total = kept[f"blocks.{layer}.attn.hook_pattern"].sum(-1)
    return total, torch.ones_like(total)


def _parallel(model: TransformerBridge, kept: Kept) -> bool:
    try:
        ours, theirs = _mlp_input(model, kept, 0, parallel=True)
        return _error(ours, theirs) <= tolerance(theirs.dtype)
    except Exception:  # the comparison that follows says why
        return False


def _mlp_input(
    model: TransformerBridge, kept: Kept, layer: int, parallel: bool
) -> tuple[Tensor, Tensor]:
    stream = kept[f"blocks.{layer}.hook_resid_pre"]
    if not parallel:
        stream = stream + kept[f"blocks.{layer}.hook_attn_out"]
    return stream, kept[mlp_reads(model, layer)].view_as(stream)


def _stream(model: TransformerBridge, kept: Kept, layer: int) -> tuple[Tensor, Tensor]:
    block, last = f"blocks.{layer}.", layer == model.cfg.n_layers - 1
    parts = [kept[block + hook] for hook in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out")]
    after = kept["ln_final.hook_in" if last else f"blocks.{layer + 1}.hook_resid_pre"]
    return parts[0] + parts[1] + parts[2].view_as(after), after


def _logits(
    model: TransformerBridge, kept: Kept, logits: Tensor, scale: float, cap: float | None
) -> tuple[Tensor, Tensor]:
    x = Norm.of(model, "ln_final")(kept["ln_final.hook_in"])
    out = scale * (x @ model.W_U + model.b_U)
    return out if cap is None else cap * (out / cap).tanh(), logits


def _logit_scale(
    model: TransformerBridge, kept: Kept, logits: Tensor
) -> tuple[float, float | None]:
    """What multiplies the logits, under a cap if the configuration names one that fits."""
    config = model.original_model.config.get_text_config()
    named = (getattr(config, name, None) for name in ("final_logit_softcapping", "logits_soft_cap"))
    for cap in filter(None, named):
        before = cap * (logits.double() / cap).atanh()
        scale = _ratio(partial(_logits, model, kept, before, 1.0, None))
        if _error(*_logits(model, kept, logits, scale, cap)) <= tolerance(logits.dtype):
            return scale, cap
    return _ratio(partial(_logits, model, kept, logits, 1.0, None)), None


def _ratio(both: Callable[[], tuple[Tensor, Tensor]]) -> float:
    """The factor between a formula's result and the model's; of few digits if one is near."""
    try:
        ours, theirs = both()
    except Exception:  # the comparison that follows says why
        return 1.0
    ours, theirs = ours.double(), theirs.double()
    factor = ((ours * theirs).sum() / (ours * ours).sum()).item()
    short = (float(f"{factor:.{digits}g}") for digits in range(1, 7))
    return next((value for value in short if isclose(value, factor, rel_tol=1e-7)), factor)
