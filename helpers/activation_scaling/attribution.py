"""Attribution maps: ActivPatch, AttrPatch and DLA, each usable as α of Eq. 5 (section 6.1).

A map has a site's scores in the shape of an ActivScalar's θ, averaged over prompts or, with
``mean=False``, one for each prompt on a first axis. What is attributed is the logit difference at
the last token, in nats; a positive score says that the activation, as it is, speaks for the
correct answer, so that scaling it up should too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.objective import logit_diff, wide
from helpers.activation_scaling.points import Points
from helpers.models import direct
from helpers.models.checks import checked, real, vectors, whole
from helpers.models.formulas import require
from helpers.models.hooks import hooked
from helpers.models.resume import Run
from helpers.models.run import HOOKS, last_logits, read_activations, unembed
from helpers.models.tokens import check_one_length
from helpers.prompts.prompts import Prompts

Maps = dict[str, Float[Tensor, "layer pos *head"]]
# By site and layer, for a batch of prompts; at head_out those of z, which the outputs come from.
Activations = Mapping[tuple[str, int], Float[Tensor, "batch pos *head d"]]


@checked
def activations(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], points: Points
) -> dict[tuple[str, int], Tensor]:
    """Activations at the points' sites and layers, at every position.

    Raises:
        ValueError: points of another model or length, or prompts of several lengths.
    """
    points.check_model(model)
    check_one_length(tokens)
    points.check_length(tokens.shape[1])
    names = [_hook(place) for place in points.places]
    kept, _ = read_activations(model, tokens, names, batch_size=len(tokens))
    return {place: kept[_hook(place)] for place in points.places}


@torch.no_grad()
@checked
def noised_activations(
    model: TransformerBridge,
    prompts: Prompts,
    points: Points,
    *,
    std: float = 3.0,
    seed: int = 0,
) -> dict[tuple[str, int], Tensor]:
    """Activations of prompts with Gaussian noise on all token embeddings but the first.

    Args:
        std: in standard deviations of the embedding's entries; Meng et al. (2022) take 3.
        seed: of the first prompt's noise; that of prompt i is ``seed + i``. It is drawn on the
            CPU, so that it is the same on every device.
    """
    std, seed = real("std", std, 0), whole("seed", seed, 0)
    scale, size = std * wide(model.W_E).std(), (prompts.n_pos - 1, model.cfg.d_model)
    noise = []
    for i in range(len(prompts)):
        generator = torch.Generator().manual_seed(seed + i)
        noise.append(torch.randn(size, generator=generator, dtype=torch.float64))

    def corrupt(embedding: Tensor, hook) -> Tensor:
        out = wide(embedding.clone())
        out[:, 1:] += scale * torch.stack(noise).to(out)
        return out.to(embedding.dtype)

    with hooked(model, [("hook_embed", corrupt)]):
        return activations(model, prompts.tokens, points)


@torch.no_grad()
@checked
def activ_patch(
    model: TransformerBridge,
    prompts: Prompts,
    points: Points,
    other: Activations,
    *,
    mean: bool = True,
    batch_size: int = 64,
) -> Maps:
    """Activation patching: the fall of the logit difference when one activation is swapped.

    α_k = LD(x) − LD(x with h_k ← h'_k), for each prompt and point a forward pass from its layer and
    position on (on a GPU, the first position). A swap for an equal activation changes nothing.

    Args:
        other: h', from :func:`activations` of counterfactuals or :func:`noised_activations`.
        mean: over prompts; else every prompt has a map of its own, on a first axis.
        batch_size: rows in one forward pass.

    Raises:
        ValueError: as :func:`activations`; points without positions; an ``other`` that lacks some.
    """
    size = whole("batch_size", batch_size)
    own, run = activations(model, prompts.tokens, points), Run.of(model, prompts.tokens)
    _check_other(other, own)
    base = logit_diff(unembed(model, run.ends), prompts.correct, prompts.wrong)
    scores = {place: wide(h[..., 0] * 0) for place, h in own.items()}
    for layer, group in product(points.layers, _groups(points.positions, base.device)):
        first, positions = min(group), torch.tensor(group, device=base.device)
        # The swaps that change anything: a site, a prompt, which position and, if any, which head.
        found = []
        for number, site in enumerate(points.sites):
            changed = (other[site, layer][:, group] != own[site, layer][:, group]).any(-1)
            spots = changed.reshape(*changed.shape[:2], -1).nonzero()
            found.append(torch.cat([torch.full_like(spots[:, :1], number), spots], dim=1))
        for swaps in filter(len, torch.cat(found).split(size)):
            hooks, places = [], []
            for number, site in enumerate(points.sites):
                at = (swaps[:, 0] == number).nonzero()[:, 0]
                row, nth, *head = swaps[at, 1 : None if points.heads(site) else 3].T
                where = row, positions[nth], *head
                swap = {"at": (at, where[1] - first, *head), "h_other": other[site, layer][where]}
                hooks.append((_hook((site, layer)), partial(_swap, **swap)))
                places.append((at, (site, layer), where))
            row = swaps[:, 1]
            with hooked(model, hooks):
                logits = unembed(model, run.edited(model, layer, first, lambda x: x, row))
            fall = base[row] - logit_diff(logits, prompts.correct[row], prompts.wrong[row])
            for at, place, where in places:
                scores[place][where] = fall[at]
    return _as_maps(scores, points, mean)


def _groups(positions: Sequence[int], device: torch.device) -> list[list[int]]:
    """Positions that share runs: all on a GPU, to which small runs cost more than long ones."""
    return [[pos] for pos in positions] if device.type == "cpu" else [[*positions]]


def _swap(h: Tensor, hook, at: tuple, h_other: Float[Tensor, "swap d"]) -> Tensor:
    return h.index_put(at, h_other)


@checked
def attr_patch(
    model: TransformerBridge,
    prompts: Prompts,
    points: Points,
    other: Activations,
    *,
    mean: bool = True,
) -> Maps:
    """Attribution patching: :func:`activ_patch` to first order, α_k = −∇_{h_k}LD(x) · (h'_k − h_k).

    One forward and backward pass give the whole map. Raises as :func:`activ_patch`.
    """
    check_one_length(prompts.tokens)
    own = {}

    def watch(h: Tensor, hook, place: tuple[str, int]) -> Tensor:
        # The weights are frozen: the graph starts at the first activation watched.
        own[place] = h if h.requires_grad else h.detach().requires_grad_()
        return own[place].clone()  # a model may add to its input in place

    hooks = [(_hook(place), partial(watch, place=place)) for place in points.places]
    with torch.enable_grad(), hooked(model, hooks):
        difference = logit_diff(last_logits(model, prompts.tokens), prompts.correct, prompts.wrong)
        gradients = torch.autograd.grad(difference.sum(), list(own.values()))
    # Those of a run like that of ``other``, so that equal activations differ by exactly 0.
    before, scores = activations(model, prompts.tokens, points), {}
    _check_other(other, before)
    for place, gradient in zip(own, gradients):
        scores[place] = -(wide(gradient) * (wide(other[place]) - before[place])).sum(-1)
    return _as_maps(scores, points, mean)


@torch.no_grad()
@checked
def direct_logit(
    model: TransformerBridge, prompts: Prompts, points: Points, *, mean: bool = True
) -> Maps:
    """Direct logit attribution: α_k = h_k · r_i, with the final norm's σ held at position i.

    Scores of the last position are parts of the logit difference (``helpers.models.direct``);
    elsewhere they say what the activation would add if its position were the last.

    Raises:
        ValueError: a site whose activations are not added to the residual stream as they are.
    """
    if other := [site for site in points.sites if site not in ("attn_out", "mlp_out", "head_out")]:
        raise ValueError(
            f"direct logit attribution is of parts of the residual stream; {other[0]} is not one."
        )
    require(model, "norms", "attention", "stream", "logits")
    found = activations(model, prompts.tokens, points)
    names = ["ln_final.hook_in", *direct.post_norm_inputs(model)]
    final, logits = read_activations(model, prompts.tokens, names)
    difference, _ = direct.logit_diff_vector(model, prompts.correct, prompts.wrong, logits)
    r, _ = direct.readout(model, final["ln_final.hook_in"], difference[:, None])
    scores = {}
    for (site, layer), h in found.items():
        if site == "head_out":
            own, _ = direct.through_attention(model, layer, r, final.__getitem__)
            w_o, own = wide(model.W_O[layer]), wide(own)
            scores[site, layer] = torch.einsum("bphe, hed, bpd -> bph", wide(h), w_o, own)
        else:
            scores[site, layer] = (wide(h) * r).sum(-1)
    return _as_maps(scores, points, mean)


@checked
def as_scalars(maps: Maps, points: Points) -> ActivScalar:
    """The intervention whose α is the map, as in section 6.1.

    Raises:
        TypeError, ValueError: maps of other sites, or with numbers that are not finite.
    """
    if set(maps) != set(points.sites):
        raise ValueError(f"there are maps of {[*maps]}, and the points are at {points.sites}.")
    some, *_ = [vectors(f"the map of {site}", one) for site, one in maps.items()]
    intervention = ActivScalar(points, dtype=some.dtype, device=some.device)
    for site, theta in intervention.theta.items():
        if maps[site].shape != theta.shape:
            found = tuple(maps[site].shape)
            raise ValueError(f"the map of {site} has shape {found}, and not {tuple(theta.shape)}.")
    intervention.theta.load_state_dict(maps)
    return intervention


def _as_maps(
    scores: Mapping[tuple[str, int], Float[Tensor, "batch pos *head"]], points: Points, mean: bool
) -> Maps:
    """Scores at every position as maps of the points, of each prompt or their mean."""
    if points.n_pos is None:
        raise ValueError("a map has positions: make its points with n_pos, the prompts' length.")
    maps = {}
    for site in points.sites:
        each = torch.stack([scores[site, layer] for layer in points.layers], dim=1)
        each = each[:, :, list(points.positions)]
        maps[site] = each.mean(0) if mean else each
    return maps


def _check_other(other: Activations, own: Activations) -> None:
    for place, h in own.items():
        if place not in other or vectors(f"other{place}", other[place]).shape != h.shape:
            site, layer = place
            raise ValueError(f"there are no other activations of {site} in layer {layer} to swap.")


def _hook(place: tuple[str, int]) -> str:
    return HOOKS[place[0]].format(layer=place[1])
