"""Attribution maps: ActivPatch, AttrPatch and DLA, each as a map of scalars that can be put into Eq. 5 as α.

Section 6.1 of the activation-scaling paper. Maps are by site, of the shape of an ActivScalar's θ, averaged over prompts. The
quantity attributed is the logit difference of the last position, in nats; the sign is such that a positive score says
"this activation, as it is, speaks for the correct answer", so that scaling it up should too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.objective import logit_diff
from helpers.activation_scaling.points import Points
from helpers.models.norms import Norm
from helpers.models.run import HOOKS, last_logits, read_activations
from helpers.prompts.prompts import Prompts

Maps = dict[str, Float[Tensor, "layer pos *head"]]
# Of a batch of prompts, by site and layer number; at head_out that of z, whose linear image a head's output is.
Activations = Mapping[tuple[str, int], Float[Tensor, "batch pos *head d"]]


def activations(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], points: Points
) -> dict[tuple[str, int], Tensor]:
    """The activations at the points' sites and layers, at every position."""
    points.check_model(model)
    names = {where: HOOKS[where[0]].format(layer=where[1]) for where in _where(points)}
    kept, _ = read_activations(model, tokens, names.values(), batch_size=len(tokens))
    return {where: kept[name] for where, name in names.items()}


@torch.no_grad()
def noised_activations(
    model: TransformerBridge,
    prompts: Prompts,
    points: Points,
    *,
    std: float = 3.0,
    positions: list[int] | None = None,
    seed: int = 0,
) -> dict[tuple[str, int], Tensor]:
    """Activations of prompts whose token embeddings carry Gaussian noise: a corruption that needs no second prompt.

    Args:
        std: of the noise, in standard deviations of the model's embedding entries; 3 is that of Meng et al. (2022).
        positions: where noise is added; everywhere after the beginning-of-sequence token if not given.
        seed: of the noise, which is drawn on the CPU and is the same on every device.
    """
    where = list(range(1, prompts.n_pos)) if positions is None else positions
    scale = std * model.W_E.std()
    generator = torch.Generator().manual_seed(seed)

    def corrupt(embedding: Tensor, hook) -> Tensor:
        noise = torch.randn(
            len(embedding),
            len(where),
            embedding.shape[-1],
            generator=generator,
            dtype=torch.float64,
        )
        out = embedding.clone()
        out[:, where] += scale * noise.to(embedding)
        return out

    with model.hooks(fwd_hooks=[("hook_embed", corrupt)]):
        return activations(model, prompts.tokens, points)


@torch.no_grad()
def activ_patch(
    model: TransformerBridge,
    prompts: Prompts,
    points: Points,
    other: Activations,
    *,
    strength: float = 1.0,
    batch_size: int = 64,
) -> Maps:
    """Activation patching: how much the logit difference falls when one activation is swapped for that of another run.

    α_k = [LD(x) − LD(x with h_k ← h_k + s·(h'_k − h_k))] / s, one forward pass a prompt and point, many to a batch.

    Args:
        model: frozen.
        prompts: x, with their answers.
        points: at which activations are swapped, one at a time.
        other: h', from :func:`activations` of counterfactual prompts, or from :func:`noised_activations`.
        strength: s: 1 swaps; towards 0 the map goes to that of :func:`attr_patch`.
        batch_size: rows a forward pass.
    """
    base = logit_diff(last_logits(model, prompts.tokens), prompts.correct, prompts.wrong)
    maps = empty_maps(points, base)
    for site, layer in _where(points):
        heads = range(prod(points.heads(site)))  # one where the site has no heads
        spots = torch.cartesian_prod(
            torch.arange(len(prompts)), torch.tensor(points.positions), torch.tensor(heads)
        ).to(base.device)
        falls = torch.cat(
            [
                base[row]
                - _patched(
                    model, prompts, site, layer, other[site, layer], row, pos, head, strength
                )
                for row, pos, head in (chunk.unbind(-1) for chunk in spots.split(batch_size))
            ]
        )
        score = (
            falls.view(len(prompts), len(points.positions), *points.heads(site)).mean(0) / strength
        )
        maps[site][points.layers.index(layer)] = score
    return maps


def _patched(
    model, prompts, site, layer, other, row, pos, head, strength
) -> Float[Tensor, " spot"]:
    """Logit difference of each spot's prompt with that spot's activation swapped."""

    def swap(h: Tensor, hook) -> Tensor:
        own = torch.arange(len(row), device=h.device)
        here, there = (
            ((own, pos), (row, pos)) if h.ndim == 3 else ((own, pos, head), (row, pos, head))
        )
        out = h.clone()
        out[here] = h[here] + strength * (other[there] - h[here])
        return out

    with model.hooks(fwd_hooks=[(HOOKS[site].format(layer=layer), swap)]):
        logits = last_logits(model, prompts.tokens[row])
    return logit_diff(logits, prompts.correct[row], prompts.wrong[row])


def attr_patch(
    model: TransformerBridge, prompts: Prompts, points: Points, other: Activations
) -> Maps:
    """Attribution patching: the first-order estimate of :func:`activ_patch`, from one forward and backward pass.

    α_k = −∇_{h_k}LD(x) · (h'_k − h_k).
    """
    own = {}

    def watch(h: Tensor, hook, where: tuple[str, int]) -> Tensor:
        # The weights are frozen: the graph starts at the first activation watched.
        own[where] = h if h.requires_grad else h.detach().requires_grad_()
        return own[where].clone()  # a model may add to what it is given in place

    with (
        torch.enable_grad(),
        model.hooks(
            fwd_hooks=[
                (HOOKS[site].format(layer=layer), partial(watch, where=(site, layer)))
                for site, layer in _where(points)
            ]
        ),
    ):
        difference = logit_diff(last_logits(model, prompts.tokens), prompts.correct, prompts.wrong)
        gradients = torch.autograd.grad(difference.sum(), list(own.values()))
    maps = empty_maps(points, difference.detach())
    for ((site, layer), h), gradient in zip(own.items(), gradients):
        score = -(gradient * (other[site, layer] - h.detach())).sum(-1).mean(0)
        maps[site][points.layers.index(layer)] = score[list(points.positions)]
    return maps


@torch.no_grad()
def direct_logit(model: TransformerBridge, prompts: Prompts, points: Points) -> Maps:
    """Direct logit attribution: what an activation adds to the logit difference by itself, through the final norm.

    α_k = h_k · r_i, with r_i the readout of :func:`readout` at the activation's own position i. Only the last position's
    scores are parts of the model's logit difference, into which all positions' activations enter; elsewhere they say
    what the activation would add if its position were the last.

    Raises:
        ValueError: a site whose activations are not added to the residual stream as they are (z, v, resid_post).
    """
    if other := [site for site in points.sites if site not in ("attn_out", "mlp_out", "head_out")]:
        raise ValueError(
            f"direct logit attribution is of what is added to the residual stream; {other[0]} is not."
        )
    found = activations(model, prompts.tokens, points)
    direction, _ = readout(model, prompts)
    maps = empty_maps(points, direction)
    for (site, layer), h in found.items():
        if site == "head_out":
            score = torch.einsum("bphe, hed, bpd -> bph", h, model.W_O[layer], direction)
        else:
            score = torch.einsum("bpd, bpd -> bp", h, direction)
        maps[site][points.layers.index(layer)] = score.mean(0)[list(points.positions)]
    return maps


def readout(
    model: TransformerBridge, prompts: Prompts
) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, " batch"]]:
    """r and c with LD = r·x + c for the residual stream x after the last block, the final norm's σ held at its value.

    r = P(w ⊙ (u_c − u_w))/σ(x) and c = b·(u_c − u_w) + b_c − b_w, with u and b_c, b_w the unembedding's columns and
    biases, and w, b, P, σ those of ``helpers.models.norms.Norm``. Exact at the x it was made for: with σ held the norm is linear.
    """
    norm = Norm.of(model, "ln_final")
    kept, _ = read_activations(model, prompts.tokens, ["ln_final.hook_in"])
    u = (model.W_U[:, prompts.correct] - model.W_U[:, prompts.wrong]).T  # [batch d_model]
    constant = model.b_U[prompts.correct] - model.b_U[prompts.wrong]
    if norm.bias is not None:
        constant = constant + u @ norm.bias
    return norm.fixed(u[:, None], kept["ln_final.hook_in"]), constant


@torch.no_grad()
def direct_terms(
    model: TransformerBridge, prompts: Prompts
) -> dict[str, Float[Tensor, "batch ..."]]:
    """Every term of the logit difference at the last position; together they sum to it, prompt by prompt.

    Returns:
        ``embed`` [batch], of the token (and learned position) embedding; ``head_out`` [batch layer head];
        ``attn_bias`` [batch layer], of the attention's output bias; ``mlp_out`` [batch layer], its bias included;
        ``final_bias`` [batch], of the final norm and the unembedding. ``attn_out`` [batch layer], the sum of
        ``head_out`` over heads and ``attn_bias``, is not among them.
    """
    layers = range(model.cfg.n_layers)
    names = [HOOKS[site].format(layer=layer) for site in ("z", "mlp_out") for layer in layers] + [
        "blocks.0.hook_resid_pre"
    ]
    cache, _ = read_activations(model, prompts.tokens, names)
    direction, constant = readout(model, prompts)
    r = direction[:, -1]
    z = torch.stack([cache[HOOKS["z"].format(layer=layer)][:, -1] for layer in layers], 1)
    mlp = torch.stack([cache[HOOKS["mlp_out"].format(layer=layer)][:, -1] for layer in layers], 1)
    return {
        "embed": torch.einsum("bd, bd -> b", cache["blocks.0.hook_resid_pre"][:, -1], r),
        "head_out": torch.einsum("blhe, lhed, bd -> blh", z, model.W_O, r),
        "attn_bias": torch.einsum("ld, bd -> bl", _output_bias(model), r),
        "mlp_out": torch.einsum("bld, bd -> bl", mlp, r),
        "final_bias": constant,
    }


def _output_bias(model: TransformerBridge) -> Float[Tensor, "layer d_model"]:
    zero = model.W_U.new_zeros(model.cfg.d_model)
    return torch.stack(
        [zero if block.attn.b_O is None else block.attn.b_O for block in model.blocks]
    )


def as_scalars(maps: Maps, points: Points) -> ActivScalar:
    """The intervention whose α is the map (Eq. 5): what section 6.1 does with attribution scores."""
    some = next(iter(maps.values()))
    intervention = ActivScalar(points, dtype=some.dtype, device=some.device)
    intervention.theta.load_state_dict(maps)
    return intervention


def empty_maps(points: Points, like: Tensor) -> Maps:
    return {
        site: like.new_zeros(len(points.layers), len(points.positions), *points.heads(site))
        for site in points.sites
    }


def _where(points: Points) -> list[tuple[str, int]]:
    return [(site, layer) for site in points.sites for layer in points.layers]
