"""Fitted edits as files of tensors, which plain PyTorch puts on a plain model.

:func:`attach` and :func:`change` need torch alone: copy them, and a model of ``transformers`` is
steered without this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import isfinite
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import ActivScalar, Intervention, SteerVec
from helpers.models.checks import checked
from helpers.models.hooks import hooked
from helpers.models.norms import tolerance
from helpers.models.run import HOOKS, last_logits
from helpers.ruler.edits import GatedVec, HeadGates, LastDynScalar, LoReFT, ToldVec, check_last

# What the tensors of one module may be.
KINDS = [{"scale"}, {"dynamic"}, {"write", "read", "bias"}, {"add", "gate", "bias"}]
KINDS += [{"closed"}, {"add"}]


def change(x: Tensor, t: dict[str, Tensor], beta: float) -> Tensor:
    """What an edit adds to activations x, [batch d]; which kind it is, the names in t say."""
    unit = normalize(x, dim=-1)  # zero where x is
    if "scale" in t:
        return beta * t["scale"] * x
    if "dynamic" in t:
        return beta * (unit @ t["dynamic"])[:, None] * x
    if "read" in t:
        return beta * (x @ t["read"] + t["bias"])[:, None] * t["write"]
    if "gate" in t:
        return beta * (unit @ t["gate"] + t["bias"]).sigmoid()[:, None] * t["add"]
    if "closed" in t:
        return -abs(beta) * t["closed"][int(beta < 0)] * x
    return beta * t["add"]


def attach(model: nn.Module, tensors: dict[str, Tensor], beta: float) -> list:
    """Put an exported edit on a plain model, at the last token of its input.

    Args:
        model: of ``transformers``.
        tensors: from ``safetensors.torch.load_file``.
        beta: 1 steers towards the correct answer, −1 towards the wrong one.

    Returns:
        Handles; ``handle.remove()`` takes the edit off.

    Raises:
        ValueError: tensors that are no exported edit of this model, or a β that is not finite.
    """

    def steer(module, given, out=None, *, t):
        whole = given if out is None else out
        h = (whole[0] if isinstance(whole, tuple) else whole).clone()
        h[:, -1] += change(h[:, -1], {kind: part.to(h) for kind, part in t.items()}, beta)
        return (h, *whole[1:]) if isinstance(whole, tuple) else h

    if not isinstance(beta, (int, float)) or not isfinite(beta):
        raise ValueError(f"beta = {beta} must be a finite number.")
    if not isinstance(tensors, dict) or not tensors:
        raise ValueError("there are no tensors of an exported edit.")
    by_module: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.partition("/")
        if not isinstance(tensor, Tensor) or not tensor.isfinite().all():
            raise ValueError(f"{key} is no tensor of finite numbers.")
        by_module.setdefault(name, {})[kind] = tensor
    there = dict(model.named_modules())
    for name, t in by_module.items():
        if name not in there or {*t} not in KINDS:
            raise ValueError(f"{name}/{', '.join(t)} is no exported edit of this model.")
    handles = []
    for name, t in by_module.items():
        module, hook = there[name], partial(steer, t=t)
        before = "closed" in t  # gates act on what a module reads
        put = module.register_forward_pre_hook if before else module.register_forward_hook
        handles.append(put(hook))
    return handles


@checked
def export(
    model: TransformerBridge, made: Intervention, path: str | Path | None = None
) -> dict[str, Tensor]:
    """The tensors of an edit at the last token, by module and kind; written to a file if named.

    Args:
        made: from ``Edit.on(prompts)``.
        path: of the safetensors file.

    Raises:
        TypeError: an edit of a class that has no such form.
        ValueError: one at other positions than the last, of another model, or whose vectors differ
            from prompt to prompt; a model that has no module of its own for a site.
        OSError: the file cannot be written.
    """
    made.points.check_model(model)
    check_last(made)
    modules = {place: _module(model, *place) for place in made.points.places}
    _check_modules(model, modules)
    tensors = {}
    for (site, layer), name in modules.items():
        theta = made.theta[site][made.points.layers.index(layer)].detach()
        name = name.replace("._original_component", "")
        for kind, tensor in _parts(made, theta, site).items():
            tensors[f"{name}/{kind}"] = tensor.clone().contiguous()
    if path is not None:
        try:
            save_file(tensors, path)
        except SafetensorError as error:
            raise OSError(f"no file can be written to {path}: {error}.") from error
    return tensors


def as_steering_vector(made: Intervention) -> dict[str, object]:
    """Arguments of ``steering_vectors.SteeringVector``, whose layers are those after a block.

    That library adds the vector at every token from ``min_token_index`` on; give −1 to its
    ``apply`` for the last one.

    Raises:
        ValueError: an edit that is no vector added to the stream.
    """
    if not isinstance(made, SteerVec) or made.points.sites != ("resid_post",):
        raise ValueError(f"{type(made).__name__} is no vector added to the residual stream.")
    if len(made.points.positions) != 1:
        raise ValueError("that library has one vector for a layer; make the edit at one position.")
    rows = made.theta["resid_post"].detach()
    layers = {layer: rows[row, 0].clone() for row, layer in enumerate(made.points.layers)}
    return {"layer_activations": layers, "layer_type": "decoder_block"}


def _parts(made: Intervention, theta: Tensor, site: str) -> dict[str, Tensor]:
    """Tensors of one site and layer, by kind."""
    width = made.points.width(site)
    if isinstance(made, ActivScalar):
        return {"scale": theta[0]}
    if isinstance(made, SteerVec):
        return {"add": theta[0]}
    if isinstance(made, LastDynScalar):
        return {"dynamic": theta}
    if isinstance(made, LoReFT):
        r, w, b = theta.split([width, width, 1])
        return {"write": normalize(r, dim=-1), "read": w, "bias": b}
    if isinstance(made, GatedVec):
        v, g, c = theta.split([width, width, 1])
        return {"add": v, "gate": g, "bias": c}
    if isinstance(made, HeadGates):
        closed = 1 - (4 + theta).sigmoid()  # [head 2]
        return {"closed": closed.T.repeat_interleave(width, dim=1)}
    if type(made) is ToldVec:
        vectors = theta.view(made.n_prompts, width)
        if (vectors != vectors[0]).any():
            raise ValueError("this edit has another vector for each pair of answers: export one.")
        return {"add": vectors[0]}
    raise TypeError(f"{type(made).__name__} cannot be written as tensors for plain hooks.")


def _module(model: TransformerBridge, site: str, layer: int) -> str:
    """Name of the module whose output, or for z whose input, the site is.

    The bridge wraps the plain model's modules, and keeps the plain one in itself; the plain model's
    name is this one without ``._original_component``.
    """
    block = model.blocks[layer]
    after = {"attn_out": "ln1_post", "mlp_out": "ln2_post"}.get(site)
    if after in block.submodules:  # what reaches the stream comes out of the norm
        found = getattr(block, after)
    else:
        found = {"mlp_out": block.mlp, "resid_post": block}.get(site, block.attn)
    for name, module in model.original_model.named_modules():
        if module is found:
            return f"{name}.{block.attn.o.name}" if site == "z" else name
    raise ValueError(f"{model.cfg.model_name} has no module of its own for {site}.")


@torch.no_grad()
def _check_modules(model: TransformerBridge, modules: Mapping[tuple[str, int], str]) -> None:
    """Raise ValueError unless each module gives, or for z takes, what is edited at its place.

    Some models add the stream inside of a module, or multiply what it gives. One run shows all.

    Args:
        modules: names by site and layer.
    """
    edited: dict[tuple[str, int], Tensor] = {}
    given: dict[tuple[str, int], Tensor] = {}

    def keep_edited(h, hook, place):
        edited[place] = h.clone()

    def keep_given(module, taken, out, place):
        value = taken[0] if place[0] == "z" else out
        given[place] = (value[0] if isinstance(value, tuple) else value).clone()

    hooks, handles = [], []
    try:
        for (site, layer), name in modules.items():
            hooks.append(
                (HOOKS[site].format(layer=layer), partial(keep_edited, place=(site, layer)))
            )
            keep = partial(keep_given, place=(site, layer))
            module = model.original_model.get_submodule(name)
            handles.append(module.register_forward_hook(keep))
        with hooked(model, hooks):
            last_logits(model, torch.arange(1, 9, device=model.W_U.device)[None])
    finally:
        for handle in handles:
            handle.remove()
    for (site, layer), h in edited.items():
        # A module that the model does not call gives nothing.
        ours, theirs = h.flatten(), given.get((site, layer), h[:0]).flatten()
        if len(ours) != len(theirs) or (ours - theirs).norm() > tolerance(h.dtype) * ours.norm():
            raise ValueError(
                f"{model.cfg.model_name}: no module gives {site} of layer {layer} as it is edited. "
                "Edits of the stream (resid_post) can be exported."
            )
