"""A second implementation of Eq. 4 and 5, activation scaling, by PyTorch's own hooks."""

from __future__ import annotations

import torch

from helpers.activation_scaling.interventions import ActivScalar


def blocks(hf):
    """The blocks of a Hugging Face model."""
    inner = hf.base_model
    return inner.h if hasattr(inner, "h") else inner.layers


def independent_logits(hf, intervention, tokens: torch.Tensor, beta: float) -> torch.Tensor:
    """Last-token logits of a Hugging Face model, steered at attn_out, mlp_out or resid_post."""

    def edit(site: str, layer: int):
        theta = intervention.theta[site].detach()

        def hook(module, args, output):
            h = output[0] if isinstance(output, tuple) else output
            h = h.clone()
            for index, position in enumerate(intervention.points.positions):
                parameter = theta[intervention.points.layers.index(layer), index]
                if isinstance(intervention, ActivScalar):
                    h[:, position] = h[:, position] * (1 + beta * parameter)
                else:
                    h[:, position] = h[:, position] + beta * parameter
            return (h, *output[1:]) if isinstance(output, tuple) else h

        return hook

    handles = []
    for layer in intervention.points.layers:
        block = blocks(hf)[layer]
        attention = [name for name in ("attn", "self_attn", "attention") if hasattr(block, name)]
        places = {"attn_out": getattr(block, attention[0]), "mlp_out": block.mlp}
        places["resid_post"] = block
        for site in intervention.points.sites:
            handles.append(places[site].register_forward_hook(edit(site, layer)))
    try:
        return hf(tokens).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()
