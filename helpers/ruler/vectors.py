"""Methods that add a vector to the stream: from the weights, from groups, from gradients."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from helpers.models.checks import checked
from helpers.models.norms import Norm
from helpers.observable_propagation.edits import least_norm
from helpers.observable_propagation.features import head_features
from helpers.observable_propagation.pull_back import NormWeights, through_heads
from helpers.prompts.prompts import Prompts
from helpers.ruler.edits import Edit, SetReading
from helpers.ruler.methods import Method, Seen, constant, of_length, register, told
from helpers.ruler.pullback import pullback

Vectors = Float[Tensor, "n d_model"]
DUNEFSKY = "dunefsky2024observable"


@checked
def longest(vectors: Float[Tensor, "n k d_model"]) -> Vectors:
    """Of k vectors the longest, for each n."""
    best = vectors.norm(dim=-1).argmax(-1)
    return vectors[torch.arange(len(vectors), device=vectors.device), best]


@register
class HeadVector(Method):
    """The longest of the layer's heads' feature vectors, y = ln1ᵀ W_OVᵀ ln_finalᵀ m."""

    name, source, needs = "head's feature vector", DUNEFSKY, "answers"

    def make(self, seen: Seen, layer: int) -> Edit:
        def vectors(prompts: Prompts) -> Vectors:
            m = seen.observables(prompts)
            y = head_features(seen.model, m, norms=NormWeights(), layers=[layer])
            return of_length(longest(y[:, 0]), seen.length)

        return told(seen, layer, vectors)


@register
class PathVector(Method):
    """The longest feature vector of a path: a head of this layer, then one of a later layer."""

    name, source, needs = "path's feature vector", DUNEFSKY, "answers"

    def make(self, seen: Seen, layer: int) -> Edit:
        later = range(layer + 1, seen.model.cfg.n_layers)

        def vectors(prompts: Prompts) -> Vectors:
            m = seen.observables(prompts)
            y = head_features(seen.model, m, norms=NormWeights(), layers=later).flatten(1, 2)
            both = through_heads(seen.model, layer, y, norms=NormWeights())
            return of_length(longest(both.flatten(1, 2)), seen.length)

        return told(seen, layer, vectors)


@register
class HeadsVector(Method):
    """The sum of the feature vectors of all heads from this layer on, with equal scores."""

    name, source, needs = "several heads' vector", DUNEFSKY, "answers"

    def make(self, seen: Seen, layer: int) -> Edit:
        later = range(layer, seen.model.cfg.n_layers)

        def vectors(prompts: Prompts) -> Vectors:
            m = seen.observables(prompts)
            y = head_features(seen.model, m, norms=NormWeights(), layers=later)
            return of_length(y.sum((1, 2)), seen.length)

        return told(seen, layer, vectors)


@checked
def end_feature(seen: Seen, m: Vectors) -> Vectors:
    """What reads m·ln_final(x) in front of ln_final, with σ at its mean over training prompts."""
    final = Norm.of(seen.model, "ln_final")
    return final.fixed(m, seen.run.ends[:, None]).mean(0)


@register
class LeastNorm(Method):
    """At the end: the shortest vector that moves the answers' difference and not their sum."""

    name, source, needs = "least-norm vector", DUNEFSKY, "answers, training prompts"
    layers = "end"

    def make(self, seen: Seen, layer: int) -> Edit:
        model = seen.model

        def vectors(prompts: Prompts) -> Vectors:
            right, wrong = model.W_U.T[prompts.correct], model.W_U.T[prompts.wrong]
            difference, total = end_feature(seen, right - wrong), end_feature(seen, right + wrong)
            wish = difference.new_tensor([1.0, 0.0])  # nats
            pairs = torch.stack([difference, total], dim=1)
            return torch.stack([least_norm(pair, wish) for pair in pairs])

        return told(seen, layer, vectors)


@register
class Projection(Method):
    """At the end: what the observable reads is set, whatever it was, if β is at least 1."""

    name, source, needs = "projection", DUNEFSKY, "answers, training prompts"
    layers = "end"

    def make(self, seen: Seen, layer: int) -> Edit:
        def features(prompts: Prompts) -> Vectors:
            return end_feature(seen, seen.observables(prompts))

        how = {"kind": SetReading, "mean": seen.run.ends.mean(0), "target": 1.0}
        return told(seen, layer, features, **how)


@register
class MeanDifference(Method):
    """Mean stream of the training prompts that lean more to the correct answer, minus the rest."""

    name, source, needs = "mean difference", "rimsky2024steering", "training prompts"

    def make(self, seen: Seen, layer: int) -> Edit:
        x = seen.stream(layer)
        more = seen.leaning > seen.leaning.median()
        v = x[more].mean(0) - x[~more].mean(0)
        return constant(seen, layer, of_length(v, seen.length))


@register
class RandomDirection(Method):
    """The null: a direction drawn at random."""

    name, source, needs = "random direction", "control", "nothing"

    def make(self, seen: Seen, layer: int) -> Edit:
        generator = torch.Generator().manual_seed(1000 * seen.task.seed + layer)
        v = torch.randn(seen.model.cfg.d_model, generator=generator).to(seen.model.W_U)
        return constant(seen, layer, of_length(v, seen.length))


@register
class Pullback(Method):
    """The mean over neutral texts of ∂(n·logits)/∂h in front of the layer.

    Over several prefixes of each text where the task has one pair of answers; where it has many,
    each would cost as much, and one prefix of each text has to do.
    """

    name, source, needs = "Jacobian pullback", "hernandez2024linearity", "answers, neutral texts"

    def make(self, seen: Seen, layer: int) -> Edit:
        def vectors(prompts: Prompts) -> Vectors:
            m = seen.observables(prompts)
            runs = seen.text_runs if len(m) == 1 else seen.text_runs[-1:]
            means = [pullback(seen.model, run, m, [layer])[0] for run in runs]
            return of_length(torch.stack(means).mean(0), seen.length)

        return told(seen, layer, vectors)
