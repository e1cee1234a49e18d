"""The ruler's methods. Each is a class with one method, ``make``, and is known by its name.

``make`` gets what a method may see, :class:`Seen`, and returns an :class:`Edit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import SteerVec
from helpers.activation_scaling.objective import logit_diff
from helpers.models import checks
from helpers.models.checks import checked, real, whole
from helpers.models.direct import logit_diff_vector
from helpers.models.resume import Run
from helpers.models.run import last_logits, unembed
from helpers.prompts.prompts import Prompts
from helpers.ruler.edits import Edit, ToldVec, last_points, size_of
from helpers.ruler.tasks import Ruled

METHODS: dict[str, type[Method]] = {}


@checked
@dataclass(frozen=True)
class Seen:
    """What a method may see: the model, training prompts, neutral texts, and a seed.

    Attributes:
        task: of which a method uses ``train`` and ``texts``; the rest is for the report.
        epochs: of those that learn.
        n_texts: of those that average over neutral texts and prefixes of them.
        kept: what one method made and another takes too, with what it cost.
        reused: the cost of what was taken so, as if it had been made each time.
    """

    model: TransformerBridge
    task: Ruled
    epochs: int = 12
    n_texts: int = 192
    kept: dict[Hashable, tuple[Any, dict[str, float]]] = field(default_factory=dict, compare=False)
    reused: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def train(self) -> Prompts:
        return self.task.train

    @cached_property
    def run(self) -> Run:
        """A finished run of the training prompts."""
        return Run.of(self.model, self.train.tokens)

    @cached_property
    def leaning(self) -> Float[Tensor, " prompt"]:
        """Logit difference of the training prompts, correct minus wrong, in nats."""
        logits = unembed(self.model, self.run.ends)
        return logit_diff(logits, self.train.correct, self.train.wrong)

    @cached_property
    def text_runs(self) -> list[Run]:
        """Finished runs of ``n_texts`` neutral prefixes: of all texts, at several lengths."""
        texts = self.task.texts
        lengths = torch.linspace(8, texts.shape[1], max(1, self.n_texts // len(texts))).int()
        return [Run.of(self.model, texts[: self.n_texts, :length]) for length in lengths.tolist()]

    def stream(self, layer: int) -> Float[Tensor, "prompt d_model"]:
        """The residual stream at the last token in front of a layer, on the training prompts."""
        layer = whole("layer", layer, 0, self.model.cfg.n_layers + 1)
        return self.run.stream[layer][:, -1]

    def observables(self, prompts: Prompts) -> Float[Tensor, "prompt d_model"]:
        """m = W_U n with n the correct minus the wrong answer, of each prompt."""
        return logit_diff_vector(self.model, prompts.correct, prompts.wrong, self._at(prompts))[0]

    def _at(self, prompts: Prompts) -> Tensor | None:
        # Where a model caps its logits, a vector that reads them depends on the prompt.
        if getattr(self.model.original_model.config, "final_logit_softcapping", None) is None:
            return None
        with torch.no_grad():
            return last_logits(self.model, prompts.tokens)

    @property
    def length(self) -> float:
        """A tenth of the stream's mean length halfway through the model: where searches start."""
        return 0.1 * self.stream(self.model.cfg.n_layers // 2).norm(dim=-1).mean().item()


class Method(ABC):
    """A way to make an edit.

    Attributes:
        name: in the table.
        source: key of the bibliography, or what it is.
        needs: what it is told beside the model.
        layers: ``all`` or ``end`` if it is made once; ``each`` if it is made in front of a layer,
            which the ruler chooses.
        learned: whether β = 1 is a strength that it was fitted for.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[str]
    layers: ClassVar[str] = "each"
    learned: ClassVar[bool] = False

    @abstractmethod
    def make(self, seen: Seen, layer: int) -> Edit:
        """The edit, in front of this layer if the method has one."""


def register(kind: type[Method]) -> type[Method]:
    """Add a method to the table, under its name.

    Raises:
        TypeError: no subclass of :class:`Method` with a name.
        ValueError: a name that another class has.
    """
    if not (isinstance(kind, type) and issubclass(kind, Method) and hasattr(kind, "name")):
        raise TypeError(f"{kind!r} must be a subclass of Method with a name.")
    known = METHODS.setdefault(kind.name, kind)
    # In a notebook a cell may run again.
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise ValueError(f"the ruler has a method {kind.name!r} already.")
    METHODS[kind.name] = kind
    return kind


@checked
def constant(seen: Seen, layer: int, v: Float[Tensor, " d_model"]) -> Edit:
    """The edit that adds β·v at the last token in front of a layer, on any prompt.

    Raises:
        TypeError, ValueError: no such layer, or another vector.
    """
    last_points(seen.model, 1, layer)
    checks.vectors("v", v, seen.model.cfg.d_model, axes=1)

    def on(prompts: Prompts) -> SteerVec:
        points = last_points(seen.model, prompts.n_pos, layer)
        added = SteerVec(points, dtype=v.dtype, device=v.device)
        added.theta["resid_post"].data[:] = v
        return added

    return Edit(on, size_of(v), 1, layer)


@checked
def told(
    seen: Seen, layer: int, vectors_for: Callable[[Prompts], Float[Tensor, "n d_model"]], **how
) -> Edit:
    """The edit that adds β·v at the last token, with a v for each pair of answers.

    Args:
        vectors_for: from prompts with different answers to a vector for each. It is asked once for
            each pair; where all prompts have one pair, v is a constant vector.
        how: ``kind``, another class than :class:`ToldVec`, and what its constructor takes.
    """
    kind, known = how.pop("kind", ToldVec), {}
    last_points(seen.model, 1, layer)  # refuses a layer that is not there

    def vectors(prompts: Prompts) -> Float[Tensor, "prompt d_model"]:
        pairs = list(zip(prompts.correct.tolist(), prompts.wrong.tolist()))
        new = {pair: row for row, pair in enumerate(pairs) if pair not in known}
        if new:
            found = vectors_for(prompts.at(list(new.values())))
            checks.vectors("what vectors_for gives", found, seen.model.cfg.d_model, axes=2)
            if len(found) != len(new):
                raise ValueError(f"vectors_for gives {len(found)} vectors for {len(new)} prompts.")
            known.update(zip(new, found))
        return torch.stack([known[pair] for pair in pairs])

    def on(prompts: Prompts) -> ToldVec:
        points = last_points(seen.model, prompts.n_pos, layer)
        return kind(points, vectors(prompts), **how)

    return Edit(on, size_of(vectors(seen.train)[0]), 1, layer)


def of_length(vectors: Float[Tensor, "n d_model"], length: float) -> Float[Tensor, "n d_model"]:
    """Vectors of a given length; the ruler chooses how much of them is added.

    Raises:
        TypeError, ValueError: a vector that is zero or not finite, or such a length.
    """
    length = real("length", length, 0)
    if (checks.vectors("vectors", vectors) == 0).all(-1).any():
        raise ValueError("a vector is zero: it has no direction to steer in.")
    return length * vectors / vectors.norm(dim=-1, keepdim=True)
