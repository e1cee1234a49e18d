"""Read activations off a model: the named hooks of one run, and nothing else kept."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models import last_logits


@torch.no_grad()
def read(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], names: Iterable[str], *, batch_size: int = 64
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
    hooks = [(name, lambda value, hook, name=name: kept[name].append(value.detach().clone())) for name in names]
    with model.hooks(fwd_hooks=hooks):
        for chunk in tokens.split(batch_size):
            logits.append(last_logits(model, chunk))
    return {name: torch.cat(values) for name, values in kept.items()}, torch.cat(logits)
