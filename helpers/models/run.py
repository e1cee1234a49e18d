"""Read activations off a model: the named hooks of one run, and nothing else kept."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.tokens import PAD, is_padded

# Site -> the hook where its activation can be replaced. ``head_out`` is what one head adds to the residual stream,
# z @ W_O: no hook shows it in every architecture (GPT-Neo has no hook_result), so interventions act on z instead.
HOOKS = {
    "attn_out": "blocks.{layer}.hook_attn_out",  # [batch pos d_model], what attention adds to the residual stream
    "mlp_out": "blocks.{layer}.hook_mlp_out",  # [batch pos d_model], what the MLP adds
    "resid_post": "blocks.{layer}.hook_resid_post",  # [batch pos d_model], the residual stream after the block
    "z": "blocks.{layer}.attn.hook_z",  # [batch pos head d_head], values averaged by the attention pattern
    "v": "blocks.{layer}.attn.hook_v",  # [batch pos kv_head d_head], value vectors before averaging
    "head_out": "blocks.{layer}.attn.hook_z",  # [batch pos head d_model] = z @ W_O, one head's share of attn_out
}


def last_logits(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch d_vocab"]:
    """Logits of the next token, for the last position alone: the others' are never computed.

    Hooks that are on the model act as they do in ``model(tokens)``. Rows filled up with ``PAD`` on the right (see
    ``helpers.prompts.prompts``) give the logits of their own last token, which sees nothing of the filling.
    """
    if is_padded(tokens):
        # One common set of positions, then each row's own among them: logits_to_keep knows no other way.
        ends, own = ((tokens != PAD).sum(-1) - 1).unique(return_inverse=True)
        logits = model.original_model(
            input_ids=tokens.clamp_min(0), logits_to_keep=ends, use_cache=False
        ).logits
        return logits[torch.arange(len(tokens), device=tokens.device), own]
    # Asked for by a tensor: a slice would reach the unembedding as a view with gaps, which torch multiplies row by row,
    # reading the whole of W_U for each.
    last = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
    return model.original_model(input_ids=tokens, logits_to_keep=last, use_cache=False).logits[
        :, -1
    ]


@torch.no_grad()
def read_activations(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    names: Iterable[str],
    *,
    batch_size: int = 64,
) -> tuple[dict[str, Float[Tensor, "batch ..."]], Float[Tensor, "batch d_vocab"]]:
    """The activations at some hooks, and the last position's logits.

    Args:
        model: hooks that are on it act as they do in ``model(tokens)``.
        tokens: prompts of one length.
        names: TransformerLens' hook names, for example ``blocks.3.ln1.hook_in``.
        batch_size: prompts that go through the model at once.

    Raises:
        ValueError: a hook that this model does not have.
    """
    names = list(names)
    if unknown := [name for name in names if name not in model.hook_dict]:
        raise ValueError(f"{model.cfg.model_name} has no hook {unknown[0]!r}.")
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    logits = []
    # Copies: some models add to the residual stream in place.
    hooks = [
        (name, lambda value, hook, name=name: kept[name].append(value.detach().clone()))
        for name in names
    ]
    with model.hooks(fwd_hooks=hooks):
        for chunk in tokens.split(batch_size):
            logits.append(last_logits(model, chunk))
    return {name: torch.cat(values) for name, values in kept.items()}, torch.cat(logits)
