"""Run a model: logits of the next token, and the activations at named hooks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from helpers.models.checks import checked, vectors, whole
from helpers.models.formulas import require
from helpers.models.hooks import alone, hooked
from helpers.models.norms import Norm
from helpers.models.tokens import check_tokens, ends, is_padded

# Site -> the hook where its activation can be replaced. ``head_out`` is what a head adds to the
# residual stream, z @ W_O: not every architecture has a hook for it (GPT-Neo has no hook_result),
# so interventions act on z instead.
HOOKS = {
    "attn_out": "blocks.{layer}.hook_attn_out",  # [batch pos d_model], what attention adds
    "mlp_out": "blocks.{layer}.hook_mlp_out",  # [batch pos d_model], what the MLP adds
    "resid_post": "blocks.{layer}.hook_resid_post",  # [batch pos d_model], after the block
    "z": "blocks.{layer}.attn.hook_z",  # [batch pos head d_head], values averaged by the pattern
    "v": "blocks.{layer}.attn.hook_v",  # [batch pos kv_head d_head], values before averaging
    "head_out": "blocks.{layer}.attn.hook_z",  # [batch pos head d_model], part of attn_out
}


def last_logits(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch d_vocab"]:
    """Logits after each prompt's last token; those of other positions are never computed.

    Hooks on the model act as in ``model(tokens)``. Prompts may be padded with ``PAD`` on the
    right: a causal model's token sees nothing of what comes after it.

    Raises:
        TypeError, ValueError: tokens that :func:`helpers.models.tokens.check_tokens` refuses.
        RuntimeError: another thread is using the model.
    """
    check_tokens(model, tokens)
    if not is_padded(tokens):
        return last_logits_after(model, tokens, None)
    # logits_to_keep takes one set of positions for the batch; each row picks its own from them.
    last = ends(tokens)
    kept, own = last.unique(return_inverse=True)
    how = {"logits_to_keep": kept, "use_cache": False}
    with alone(model, last):
        logits = model.original_model(input_ids=tokens.clamp_min(0), **how).logits
    return logits[torch.arange(len(tokens), device=tokens.device), own]


def last_logits_after(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], cache: DynamicCache | None
) -> Float[Tensor, "batch d_vocab"]:
    """Last-token logits of tokens that follow those whose keys and values are in a cache.

    The run adds the tokens' own keys and values to the cache.
    """
    # A tensor, because a slice would reach the unembedding as a strided view, which torch
    # multiplies row by row, reading all of W_U for each.
    last = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
    how = {"logits_to_keep": last, "past_key_values": cache, "use_cache": cache is not None}
    with alone(model):
        return model.original_model(input_ids=tokens, **how).logits[:, -1]


@torch.no_grad()
def read_activations(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    names: Iterable[str],
    *,
    batch_size: int = 64,
) -> tuple[dict[str, Float[Tensor, "batch ..."]], Float[Tensor, "batch d_vocab"]]:
    """The activations at some hooks, and the logits after each prompt's last token.

    Args:
        model: hooks that are on it act as in ``model(tokens)``.
        tokens: prompts, also of several lengths; activations at ``PAD`` mean nothing.
        names: TransformerLens' hook names, for example ``blocks.3.ln1.hook_in``.
        batch_size: prompts in one forward pass.

    Raises:
        TypeError, ValueError: a hook that this model does not have or does not reach
            once in a run, tokens that :func:`last_logits` refuses, or a ``batch_size`` below 1.
    """
    check_tokens(model, tokens)
    size, names = whole("batch_size", batch_size), [*names]
    kept: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(value: Tensor, hook, name: str) -> None:
        # A copy: some models add to the residual stream in place.
        kept[name].append(value.detach().clone())

    hooks = [(name, partial(keep, name=name)) for name in names]
    with hooked(model, hooks):
        logits = [last_logits(model, chunk) for chunk in tokens.split(size)]
    if wrong := [name for name in names if len(kept[name]) != len(logits)]:
        raise ValueError(f"{model.cfg.model_name} does not reach {wrong[0]} once in a run.")
    return {name: torch.cat(values) for name, values in kept.items()}, torch.cat(logits)


@checked
def unembed(
    model: TransformerBridge,
    x: Float[Tensor, "*batch d_model"],
    tokens: Int[Tensor, " token"] | slice = slice(None),
) -> Float[Tensor, "*batch token"]:
    """Logits, of all tokens or some, from the residual stream in front of ``ln_final``.

    Raises:
        ValueError: a model whose logits are not its final norm, W_U and b_U, scaled and capped.
    """
    x, found = vectors("x", x, model.cfg.d_model, like=model.W_U), require(model, "norms", "logits")
    logits = Norm.of(model, "ln_final")(x) @ model.W_U[:, tokens] + model.b_U[tokens]
    logits = logits if found.logit_scale == 1 else found.logit_scale * logits
    cap = found.logit_cap
    return logits if cap is None else cap * (logits / cap).tanh()
