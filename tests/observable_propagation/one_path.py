"""The reference for feature vectors: autograd through one path, everything else held at its values.

Written with hooks on the model's own modules alone; it shares no code with the helpers it checks.
"""

from __future__ import annotations

from functools import partial

import torch


def reader(model, layer: int, part: str) -> str:
    """The hook where a part of a block reads the stream: at its norm, or at itself without one."""
    names = model.blocks[layer].submodules
    norm = "ln2" if part == "mlp" and "ln2" in names else "ln1"
    return f"blocks.{layer}.{norm if norm in names else part}.hook_in"


def gradient(
    model,
    chain: list[tuple[int, int | None]],
    tokens: torch.Tensor,
    positions: list[int],
    n: dict[int, float],
):
    """∂(n·logits at the last position)/∂(input of the first component's norm), by this path only.

    Args:
        chain: (layer, head), or (layer, None) for an MLP, from input to output.
        positions: the token that each component reads, then the one whose logits are measured.
        n: token id -> weight.
    """
    layers, clean = range(model.cfg.n_layers), {}
    norms = {reader(model, layer, part) for layer in layers for part in ("attn", "mlp")}
    norms.add("ln_final.hook_in")

    def store(value, hook):
        clean[hook.name] = value.detach().clone()

    with model.hooks(fwd_hooks=[(name, store) for name in norms]):
        model(tokens)
    # What the component before adds to the residual stream, with its gradient.
    delta = torch.zeros_like(clean["ln_final.hook_in"][0, 0], requires_grad=True)
    signal = [delta]
    reads = {"ln_final.hook_in": positions[-1]}
    for (layer, head), position in zip(chain, positions):
        reads[reader(model, layer, "mlp" if head is None else "attn")] = position

    def norm_input(value, hook):
        value = clean[hook.name].clone()
        if hook.name in reads:
            value[:, reads[hook.name]] += signal[0] - signal[0].detach()
        return value

    def only_head(value, hook, head):
        kept = value.detach().clone()
        kept[:, :, head] = value[:, :, head]
        return kept

    def keep(value, hook, position):
        signal[0] = value[0, position]

    hooks = [(name, norm_input) for name in norms]
    # Scores are held by their queries and keys: GPT-Neo discards edits of the pattern itself.
    for name in (f"blocks.{layer}.attn.hook_{x}" for layer in layers for x in "qk"):
        hooks.append((name, lambda value, hook: value.detach()))
    for (layer, head), there in zip(chain, positions[1:]):
        written = "hook_mlp_out" if head is None else "hook_attn_out"
        hooks.append((f"blocks.{layer}.{written}", partial(keep, position=there)))
        if head is not None:
            hooks.append((f"blocks.{layer}.attn.hook_z", partial(only_head, head=head)))
    with torch.enable_grad(), model.hooks(fwd_hooks=hooks):
        logits = model(tokens)[0, positions[-1]]
    measured = sum(weight * logits[token] for token, weight in n.items())
    (result,) = torch.autograd.grad(measured, delta)
    return result
