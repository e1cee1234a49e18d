"""Methods that learn from training prompts, and maps of scalars from gradients."""

from __future__ import annotations

from contextlib import nullcontext
from math import prod
from typing import ClassVar

from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.attribution import as_scalars
from helpers.activation_scaling.controls import shuffled
from helpers.activation_scaling.fitting import fit
from helpers.activation_scaling.interventions import ActivScalar, Intervention, SteerVec
from helpers.activation_scaling.objective import Objective
from helpers.activation_scaling.points import Points
from helpers.models.checks import checked
from helpers.prompts.prompts import Prompts
from helpers.ruler.axes import counted
from helpers.ruler.edits import (
    Edit,
    GatedVec,
    HeadGates,
    LastDynScalar,
    LoReFT,
    check_last,
    last_points,
    size_of,
)
from helpers.ruler.methods import Method, Seen, register
from helpers.ruler.relevance import gradient_maps, relevance_rules

STOEHR = "stoehr2024activation"
OBJECTIVE = Objective(margin=1.0, lambda_f=0.1)
EVERYWHERE = ("attn_out", "mlp_out")  # the sites of the first paper's Fig. 2


class Learned(Method):
    """A method that learns θ at the last token, for β = 1 and −1, by ascent on Eq. 9.

    Attributes:
        kind: the class of the intervention.
        rate: learning rate of Adam.
        sites: where it acts if it acts in all layers.
    """

    needs = "training prompts"
    learned = True
    kind: ClassVar[type[Intervention]]
    rate: ClassVar[float]
    sites: ClassVar[tuple[str, ...]] = ("resid_post",)

    def fitted(self, seen: Seen, layer: int) -> Intervention:
        """The fitted intervention on prompts of the training prompts' length; fitted once."""
        where = layer if self.layers == "each" else None
        like, n_pos = seen.model.W_U, seen.train.n_pos
        points = last_points(seen.model, n_pos, where, *self.sites)
        key = self.kind, self.rate, points
        if key in seen.kept:
            fitted, cost = seen.kept[key]
            seen.reused.update(cost)
            return fitted
        theta = self.kind(points, dtype=like.dtype, device=like.device)
        how = {"learning_rate": self.rate, "epochs": seen.epochs, "seed": seen.task.seed}
        with counted(seen.model) as cost:
            fitted = fit(seen.model, theta, seen.train, OBJECTIVE, **how).intervention
        seen.kept[key] = fitted, cost
        return fitted

    def make(self, seen: Seen, layer: int) -> Edit:
        return places_of(seen, self.fitted(seen, layer))


@checked
def carried(model: TransformerBridge, fitted: Intervention, places: int) -> Edit:
    """The edit of a fitted intervention at the last token, for prompts of any length."""
    check_last(fitted)
    fitted.points.check_model(model)
    points, state = fitted.points, fitted.state_dict()
    layers = points.layers

    def on(prompts: Prompts) -> Intervention:
        where = Points.of(model, prompts.n_pos, sites=points.sites, layers=layers, positions=[-1])
        made = type(fitted)(where, dtype=fitted.vec().dtype, device=fitted.vec().device)
        made.load_state_dict(state)
        return made

    only = layers[0] + 1 if len(layers) == 1 else None
    return Edit(on, size_of(fitted.vec()), places, only)


def places_of(seen: Seen, made: Intervention) -> Edit:
    """The edit of an intervention, with how many places have a number that is not negligible."""
    largest, places = made.vec().detach().abs().max(), 0
    for site, theta in made.theta.items():
        n = prod((len(made.points.layers), *made.points.heads(site)))
        places += int((theta.detach().abs().view(n, -1).amax(-1) >= 0.01 * largest).sum())
    return carried(seen.model, made, places)


@register
class Scalars(Learned):
    """One scalar for the output of every attention and MLP (Eq. 5)."""

    name, source, layers = "ActivScalar", STOEHR, "all"
    kind, rate, sites = ActivScalar, 5e-2, EVERYWHERE


@register
class Vectors(Learned):
    """One vector for the output of every attention and MLP (Eq. 4)."""

    name, source, layers = "SteerVec", STOEHR, "all"
    kind, rate, sites = SteerVec, 6e-3, EVERYWHERE


@register
class DynamicScalars(Learned):
    """Scalars α = g·ĥ as functions of the activations (Eq. 10)."""

    name, source, layers = "DynScalar", STOEHR, "all"
    kind, rate, sites = LastDynScalar, 5e-2, EVERYWHERE


@register
class RankOne(Learned):
    """LoReFT of rank one in front of a layer."""

    name, source, kind, rate = "LoReFT, rank one", "wu2024reft", LoReFT, 2e-2


@register
class Gated(Learned):
    """A vector times a logistic gate in front of a layer."""

    name, source, kind, rate = "gated steering", "ferrando2025dynamically", GatedVec, 5e-2


@register
class Gates(Learned):
    """Gates that close heads, one set for each sign of β."""

    name, source, layers = "causal head gating", "nam2025causal", "all"
    kind, rate, sites = HeadGates, 0.5, ("z",)


@register
class ShuffledScalars(Scalars):
    """The control of scalars: what ActivScalar learned, at shuffled places."""

    name, source = "ActivScalar, shuffled", "control"

    def make(self, seen: Seen, layer: int) -> Edit:
        return places_of(seen, shuffled(self.fitted(seen, layer), seen.task.seed))


@register
class GradientTimesActivation(Method):
    """α = h·∇LD of every attention's and MLP's output, mean over training prompts."""

    name, source, needs, layers = (
        "gradient × activation",
        "nanda2023attribution",
        "training prompts",
        "all",
    )
    rules = staticmethod(lambda model: nullcontext())

    def make(self, seen: Seen, layer: int) -> Edit:
        points = last_points(seen.model, seen.train.n_pos, None, *EVERYWHERE)
        with self.rules(seen.model):
            maps = gradient_maps(seen.model, seen.train, points)
        return places_of(seen, as_scalars(maps, points))


@register
class RelP(GradientTimesActivation):
    """The same with RelP's gradient: norms, patterns and activation functions held fixed."""

    name, source = "RelP map", "jafari2025relp"
    rules = staticmethod(relevance_rules)
