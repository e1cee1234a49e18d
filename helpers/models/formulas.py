"""A loaded model's self-check: do the helpers' formulas give what its own modules give?

Helpers write a model's norms, heads and unembedding out. Architectures differ there in more ways
than their configurations tell, so a run over a few tokens compares each formula with the modules.
A helper refuses if a formula that it needs does not hold; interventions need none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

import torch
from transformer_lens.model_bridge import TransformerBridge

from helpers.models import comparisons
from helpers.models.norms import tolerance

FORMULAS = {
    "norms": "w ⊙ Px/σ(x) + b is not what a norm gives",
    "values": "pattern · (norm(x) W_V + b_V) is not the z of the heads",
    "attention": "z W_O + b_O, through any norm after it, is not what attention writes",
    "mlp": "MLP(norm(x)), through any norm after it, is not what the MLP writes",
    "scores": "the attention scores of a token do not sum to 1",
    "stream": "stream + attention + MLP is not the stream after the block",
    "cache": "keys and values of earlier tokens are not all that later ones need of them",
    "logits": "ln_final(x) W_U + b_U, scaled and capped, are not the logits",
}


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
        if formula not in FORMULAS:
            raise ValueError(f"unknown formula {formula!r}; use {', '.join(FORMULAS)}.")
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
        kept, tokens, logits = comparisons.run_once(model)
    except Exception as error:  # whatever a model raises that takes more than tokens
        return Facts(dict.fromkeys(FORMULAS, f"in a run on tokens alone: {error}"))

    def holds(formula: str, where: str, both: Callable[[], comparisons.Pair]) -> None:
        try:
            ours, theirs = both()
            error = comparisons.error_of(ours, theirs)
            wrong = "" if error <= tolerance(theirs.dtype) else f"relative error {error:.2g}"
        except Exception as problem:  # whatever a missing part or hook raises
            wrong = str(problem).split("\n")[0] or type(problem).__name__
        if wrong:
            faults.setdefault(formula, f"{where}: {wrong}")

    scales: dict[str, float] = {}
    parallel = comparisons.reads_one_stream(model, kept)
    for layer in range(model.cfg.n_layers):
        if any(weight.is_meta for weight in model.blocks[layer].parameters()):
            continue  # offloaded to a disk: to read such a weight is an error of its own
        where = f"layer {layer}"
        for norm in comparisons.NORMS:
            if norm in model.blocks[layer].submodules:
                name = f"blocks.{layer}.{norm}"
                holds("norms", name, partial(comparisons.norm_output, model, kept, name))
        for part, formula in (("attn", "attention"), ("mlp", "mlp")):
            if part not in scales:
                scales[part] = comparisons.ratio_of(
                    model, partial(comparisons.written, model, kept, layer, part)
                )
            holds(
                formula, where, partial(comparisons.written, model, kept, layer, part, scales[part])
            )
        holds(
            "mlp",
            f"{where}, its input",
            partial(comparisons.mlp_input, model, kept, layer, parallel),
        )
        holds("values", where, partial(comparisons.head_outputs, model, kept, layer))
        holds("scores", where, partial(comparisons.score_sums, kept, layer))
        holds("stream", where, partial(comparisons.next_stream, model, kept, layer))
    holds("norms", "ln_final", partial(comparisons.norm_output, model, kept, "ln_final"))
    scale, cap = comparisons.scale_and_cap(model, kept, logits)
    holds("logits", "at the end", partial(comparisons.logits_of, model, kept, logits, scale, cap))
    holds("cache", "a run", partial(comparisons.resumed_logits, model, tokens, logits))
    if clip := getattr(model.original_model.config, "clip_qkv", None):
        faults.setdefault("values", f"they are clipped at {clip}")
    return Facts(faults, scales, parallel, scale, cap)
