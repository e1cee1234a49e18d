"""The reference for every feature vector: autograd through one path of a model, everything else held at its clean value.

Written with hooks on the model's own modules alone, and nothing of helpers.observable_propagation.features, helpers.models.norms or helpers.observable_propagation.paths.
"""

from __future__ import annotations

import torch


def gradient(
    model,
    chain: list[tuple[int, int | None]],
    tokens: torch.Tensor,
    positions: list[int],
    n: dict[int, float],
):
    """∂(n·logits at the last position)/∂(input of the first component's norm at its token), through this path only.

    Args:
        chain: (layer, head), or (layer, None) for an MLP, from input to output.
        positions: the token that each component reads, and last the one whose logits are measured.
        n: token id -> weight.
    """
    clean = {}
    norms = [
        f"blocks.{layer}.{ln}.hook_in"
        for layer in range(model.cfg.n_layers)
        for ln in ("ln1", "ln2")
    ] + ["ln_final.hook_in"]
    with model.hooks(
        fwd_hooks=[
            (name, lambda value, hook: clean.__setitem__(hook.name, value.detach().clone()))
            for name in norms
        ]
    ):
        model(tokens)
    d_model = clean["ln_final.hook_in"].shape[-1]
    delta = torch.zeros(d_model, dtype=clean["ln_final.hook_in"].dtype, requires_grad=True)
    signal = [delta]  # what the component before adds to the residual stream, with its gradient
    reads = {
        f"blocks.{layer}.{'ln2' if head is None else 'ln1'}.hook_in": position
        for (layer, head), position in zip(chain, positions)
    }
    reads["ln_final.hook_in"] = positions[-1]

    def norm_input(value, hook):
        value = clean[hook.name].clone()
        if hook.name in reads:
            value[:, reads[hook.name]] += signal[0] - signal[0].detach()
        return value

    def only_head(head):
        def z(value, hook):
            kept = value.detach().clone()
            kept[:, :, head] = value[:, :, head]
            return kept

        return z

    hooks = [(name, norm_input) for name in norms]
    # Scores are held by their queries and keys: GPT-Neo discards edits of the pattern itself.
    hooks += [
        (f"blocks.{layer}.attn.hook_{x}", lambda value, hook: value.detach())
        for layer in range(model.cfg.n_layers)
        for x in "qk"
    ]
    for (layer, head), there in zip(chain, positions[1:]):

        def keep(value, hook, there=there):
            signal[0] = value[0, there]

        if head is None:
            hooks.append((f"blocks.{layer}.hook_mlp_out", keep))
        else:
            hooks += [
                (f"blocks.{layer}.attn.hook_z", only_head(head)),
                (f"blocks.{layer}.hook_attn_out", keep),
            ]
    with torch.enable_grad(), model.hooks(fwd_hooks=hooks):
        logits = model(tokens)[0, positions[-1]]
    (result,) = torch.autograd.grad(
        sum(weight * logits[token] for token, weight in n.items()), delta
    )
    return result
