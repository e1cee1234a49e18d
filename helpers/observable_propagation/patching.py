"""Path patching: the direct effect of each head on an observable, measured on pairs of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.blocks import norm_after, per_head
from helpers.models.checks import checked
from helpers.models.direct import post_norm_inputs
from helpers.models.formulas import facts, require
from helpers.models.run import read_activations
from helpers.models.tokens import at_ends, check_tokens, ends
from helpers.observable_propagation.observables import Observable


@checked
def path_patching(
    model: TransformerBridge,
    clean: Int[Tensor, "pair pos"],
    corrupted: Int[Tensor, "pair pos"],
    observable: Observable,
    *,
    values_only: bool = False,
    batch_size: int = 64,
) -> Float[Tensor, "pair layer head"]:
    """Direct effect of every head at the last token: clean − patched, in nats (section 6.5).

    One head's whole input is replaced by that of the corrupted prompt, and all else stays as in the
    clean run but the final norm, which is computed again. What a head writes depends on its input
    alone, so the patched head writes what it wrote in the corrupted run: two runs serve all heads.

    Args:
        clean, corrupted: row i of one is patched into row i of the other; of equal length.
        values_only: keep the clean attention scores and patch values alone.
        batch_size: prompts in one forward pass.

    Raises:
        ValueError: prompts that differ in number or length, or a model whose heads or logits are
            not given by the helpers' formulas.
    """
    check_tokens(model, clean)
    check_tokens(model, corrupted)
    if clean.shape != corrupted.shape or not ends(clean).equal(ends(corrupted)):
        raise ValueError(
            f"clean prompts {tuple(clean.shape)} and corrupted prompts {tuple(corrupted.shape)} "
            "must match one to one, each pair of one length."
        )
    require(model, "norms", "values", "attention", "stream", "logits")
    # Two runs without hooks: what every head writes in each, and the input of the final norm.
    layers = range(model.cfg.n_layers)
    hooks = ["hook_z", "hook_pattern", "hook_v"] if values_only else ["hook_z"]
    names = ["ln_final.hook_in", *post_norm_inputs(model)]
    names += [f"blocks.{layer}.attn.{hook}" for layer in layers for hook in hooks]
    here, _ = read_activations(model, clean, names, batch_size=batch_size)
    there, _ = read_activations(model, corrupted, names, batch_size=batch_size)

    # What each head would write otherwise at the last token.
    moved, inputs = [], {}
    for layer in layers:
        name = f"blocks.{layer}.attn."
        if values_only:
            scores = at_ends(here[name + "hook_pattern"], clean, dim=2)
            values = per_head(model, there[name + "hook_v"], dim=2)
            z = torch.einsum("bhs,bshe->bhe", scores, values)
        else:
            z = at_ends(there[name + "hook_z"], clean)
        moved.append(z - at_ends(here[name + "hook_z"], clean))
    for name in post_norm_inputs(model):
        inputs[name] = at_ends(here[name], clean)
    x = at_ends(here["ln_final.hook_in"], clean)
    return direct_effects(model, observable, x, moved, inputs)


@checked
def direct_effects(
    model: TransformerBridge,
    observable: Observable,
    x: Float[Tensor, "pair d_model"],
    moved: Sequence[Float[Tensor, "pair head d_head"]],
    inputs: Mapping[str, Float[Tensor, "pair d_model"]],
) -> Float[Tensor, "pair layer head"]:
    """How much an observable loses by each head's change alone, which goes straight to the end.

    Args:
        x: input of the final norm.
        moved: for each layer, the change of what its heads write before W_O.
        inputs: of the norms after attention, by the names of ``post_norm_inputs``.

    Returns:
        In nats.

    Raises:
        ValueError: a model whose heads or logits are not given by the helpers' formulas.
    """
    require(model, "norms", "attention", "stream", "logits")
    if len(moved) != model.cfg.n_layers:
        raise ValueError(f"moved has {len(moved)} entries; give one for each layer.")
    if missing := sorted({*post_norm_inputs(model)} - {*inputs}):
        raise ValueError(f"inputs lacks {', '.join(missing)}: see post_norm_inputs.")
    x, effects = x[:, None], []
    before = observable.measure_stream(model, x)
    for layer, z in enumerate(moved):
        change = torch.einsum("bhe,hem->bhm", z, model.blocks[layer].attn.W_O)
        if (after := norm_after(model, layer, "attn")) is not None:
            u = inputs[f"{after.name}.hook_in"][:, None]
            change = after(u + change) - after(u)
        change = facts(model).scales["attn"] * change
        effects.append(before - observable.measure_stream(model, x + change))
    return torch.stack(effects, dim=1)
