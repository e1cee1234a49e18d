"""Plain ways of what the book reads from weights and runs: one head at a time, with full matrices or whole runs."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.run import last_logits
from helpers.observable_propagation.observables import Observable
from helpers.observable_propagation.pull_back import head_weights

Chain = tuple[tuple[int, int], ...]  # (layer, head), from input to output


def full_matrices(
    model: TransformerBridge, m: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n layer head d_model"]:
    """Feature vectors of all heads through the d_model × d_model matrix W_OV of each, one head after the other."""
    layers = []
    for layer in range(model.cfg.n_layers):
        W_V, W_O = head_weights(model, layer)
        layers.append(
            torch.stack([m @ (W_V[head] @ W_O[head]).T for head in range(model.cfg.n_heads)], dim=1)
        )
    return torch.stack(layers, dim=1)


@torch.no_grad()
def patching_in_turn(
    model: TransformerBridge,
    clean: Int[Tensor, "pair pos"],
    corrupted: Int[Tensor, "pair pos"],
    observable: Observable,
) -> Float[Tensor, "pair layer head"]:
    """Path patching with a run for every head: all that blocks write stays as in the clean run but that head's output.

    The head's output is the corrupted run's, as ``helpers.observable_propagation.patching.path_patching`` explains.
    """
    layers = range(model.cfg.n_layers)
    writes = [
        f"blocks.{layer}.{site}" for layer in layers for site in ("hook_attn_out", "hook_mlp_out")
    ]
    heads = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    here, there = _keep(model, clean, [*writes, *heads]), _keep(model, corrupted, heads)
    before = observable.measure(last_logits(model, clean))
    effects = []
    for layer, name in enumerate(heads):
        others = [write for write in writes if write != f"blocks.{layer}.hook_attn_out"]
        fixed = [(write, lambda value, hook, write=write: here[write]) for write in others]
        for head in range(model.cfg.n_heads):
            z = here[name].clone()
            z[:, :, head] = there[name][:, :, head]
            with model.hooks(fwd_hooks=[*fixed, (name, lambda value, hook, z=z: z)]):
                effects.append(before - observable.measure(last_logits(model, clean)))
    return torch.stack(effects, dim=1).view(len(clean), len(heads), -1)


def every_chain(
    model: TransformerBridge, m: Float[Tensor, "n d_model"], keep: int
) -> dict[int, list[tuple[float, Chain]]]:
    """The ``keep`` longest feature vectors of one head and of two, every chain by itself; the norms are ignored."""
    weights = [head_weights(model, layer) for layer in range(model.cfg.n_layers)]

    def back(layer: int, head: int, y: Tensor) -> Tensor:
        return (y @ weights[layer][1][head].T) @ weights[layer][0][head].T

    found: dict[int, list[tuple[float, Chain]]] = {1: [], 2: []}
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            y = back(layer, head, m)
            found[1].append((float(y.norm()), ((layer, head),)))
            for before in range(layer):
                for first in range(model.cfg.n_heads):
                    found[2].append(
                        (float(back(before, first, y).norm()), ((before, first), (layer, head)))
                    )
    return {length: sorted(chains, reverse=True)[:keep] for length, chains in found.items()}


def _keep(model: TransformerBridge, tokens: Tensor, names: list[str]) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    # Copies: some models add to the residual stream in place.
    with model.hooks(
        fwd_hooks=[
            (name, lambda value, hook, name=name: kept.__setitem__(name, value.clone()))
            for name in names
        ]
    ):
        last_logits(model, tokens)
    return kept
