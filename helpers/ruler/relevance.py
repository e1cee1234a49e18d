"""Relevance maps: gradient × activation with a gradient in which nonlinear parts are held fixed.

RelP (Rezaei Jafari et al., 2025) takes the rules of layer-wise relevance propagation: a norm's σ
and the attention pattern are constants, an activation function is the ratio of its output and its
input, and of a product of two branches each gets one half. Where the model has no biases, the
stream's relevance in front of every layer then sums to the logit difference itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.attribution import Maps, activations, attr_patch
from helpers.activation_scaling.points import Points
from helpers.models.checks import checked
from helpers.models.formulas import require
from helpers.models.hooks import hooked
from helpers.models.norms import Norm
from helpers.prompts.prompts import Prompts


@contextmanager
def relevance_rules(model: TransformerBridge) -> Iterator[None]:
    """The model with the same outputs and RelP's gradients, inside a ``with`` block.

    Raises:
        ValueError: norms or MLPs that these rules do not describe.
    """
    require(model, "norms", "attention", "mlp")
    hooks, handles = [], []
    # Norms: their own formula, with σ a constant.
    names = ["ln_final"]
    for layer in range(model.cfg.n_layers):
        parts = model.blocks[layer].submodules
        found = [name for name in ("ln1", "ln2", "ln1_post", "ln2_post") if name in parts]
        names += [f"blocks.{layer}.{name}" for name in found]
        # Queries and keys as constants make the pattern one, in every architecture.
        hooks += [(f"blocks.{layer}.attn.{name}", _detach) for name in ("hook_q", "hook_k")]
    for name in names:
        kept: dict[str, Tensor] = {}
        hooks.append((f"{name}.hook_in", partial(_keep, kept=kept)))
        hooks.append((f"{name}.hook_out", partial(_fixed, kept=kept, norm=Norm.of(model, name))))
    try:
        # Activation functions, and the two branches of a gated MLP.
        for layer in range(model.cfg.n_layers):
            mlp = model.blocks[layer].mlp.original_component
            function = getattr(mlp, "act_fn", getattr(mlp, "act", None))
            if not isinstance(function, nn.Module):
                raise ValueError(f"the MLP of {model.cfg.model_name} has no activation module.")
            handles.append(function.register_forward_hook(_ratio))
            if hasattr(mlp, "gate_proj"):
                handles.append(mlp.down_proj.register_forward_pre_hook(_halves))
        with hooked(model, hooks):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _detach(x: Tensor, hook) -> Tensor:
    return x.detach()


def _keep(x: Tensor, hook, kept: dict[str, Tensor]) -> None:
    kept["x"] = x


def _fixed(out: Tensor, hook, kept: dict[str, Tensor], norm: Norm) -> Tensor:
    x = kept.pop("x")
    linear = norm.weight * norm.centre(x) / norm.scale(x).detach()
    return out.detach() + (linear - linear.detach()).to(out.dtype)


def _ratio(module: nn.Module, given: tuple[Tensor], out: Tensor) -> Tensor:
    x = given[0]
    # SiLU and GELU are near x/2 at 0.
    ratio = torch.where(x.abs() > 1e-6, out / x, torch.full_like(x, 0.5)).detach()
    return out.detach() + ratio * (x - x.detach())


def _halves(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    (x,) = given
    return (x.detach() + (x - x.detach()) / 2,)


@checked
def gradient_maps(
    model: TransformerBridge, prompts: Prompts, points: Points, *, mean: bool = True
) -> Maps:
    """h·∇LD of every activation of the points: gradient × activation, as α of Eq. 5.

    That is attribution patching with zeros. Inside :func:`relevance_rules` it is RelP.

    Args:
        mean: over prompts; else every prompt has a map of its own, on a first axis.
    """
    zeros = {}
    for place, h in activations(model, prompts.tokens, points).items():
        zeros[place] = torch.zeros_like(h)
    return attr_patch(model, prompts, points, zeros, mean=mean)
