"""Observables: linear functionals on a model's logits (section 3, observable propagation).

An example is " she" minus " he".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.tokens import single_token

Term = tuple[int, str, float]


@dataclass(frozen=True)
class Observable:
    """A weighted sum of logits, n in [d_vocab], added, subtracted and scaled like a vector.

    Two observables are equal when their tokens and weights are, whatever their labels.

    Attributes:
        terms: (token id, token text, weight) in order of id, none with weight 0.
        model_name: whose tokenizer the ids belong to.
        label: a name to show instead of the sum.

    Example:
        :meth:`of` takes the ids from a model's tokenizer; here they are those of a vocabulary of
        three.

        >>> she, he = Observable(((0, " she", 1.0),), "toy"), Observable(((2, " he", 1.0),), "toy")
        >>> subject = she - he
        >>> print(subject, "|", 2 * subject)
        ␣she − ␣he | 2·␣she − 2·␣he
        >>> subject.measure(torch.tensor([3.0, 9.0, 1.0]))  # " she", another token, " he"
        tensor(2.)
    """

    terms: tuple[Term, ...]
    model_name: str
    label: str = field(default="", compare=False)

    @classmethod
    def of(
        cls, model: TransformerBridge, weights: Mapping[str, float], name: str = ""
    ) -> Observable:
        """Σ weight · logit(token), for example ``{" she": 1, " he": -1}``; mind the leading spaces.

        Raises:
            ValueError: a text that is not one token, a weight that is not finite, or an empty sum.
        """
        terms = []
        for text, weight in weights.items():
            terms.append((single_token(model, text), text, float(weight)))
        return cls._sum(terms, model.cfg.model_name, name)

    @classmethod
    def _sum(cls, terms: Iterable[Term], model_name: str, label: str = "") -> Observable:
        """Add up the weights of each token and leave out those that cancel."""
        merged: dict[int, Term] = {}
        for token, text, weight in terms:
            if not isfinite(weight):
                raise ValueError(f"the weight of {text!r} is {weight}; it must be a finite number.")
            before = merged[token][2] if token in merged else 0.0
            merged[token] = (token, text, before + weight)
        kept = tuple(term for _, term in sorted(merged.items()) if term[2])
        if not kept:
            raise ValueError("nothing is left of this observable: every weight is 0.")
        return cls(kept, model_name, label)

    def __add__(self, other: Observable) -> Observable:
        if not isinstance(other, Observable):
            raise TypeError(f"{self.name} can be added to another observable, not to {other!r}.")
        if self.model_name != other.model_name:
            raise ValueError(
                f"{self.name} belongs to {self.model_name} and {other.name} to {other.model_name}; "
                "token ids differ."
            )
        return self._sum([*self.terms, *other.terms], self.model_name)

    def __mul__(self, factor: float) -> Observable:
        scaled = [(token, text, weight * factor) for token, text, weight in self.terms]
        return self._sum(scaled, self.model_name)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Observable:
        return self * (1 / divisor)

    def __neg__(self) -> Observable:
        return self * -1

    def __sub__(self, other: Observable) -> Observable:
        return self + -1 * other

    @property
    def name(self) -> str:
        """The label, or the sum if there is none."""
        return self.label or str(self)

    def __str__(self) -> str:
        """The sum, positive terms first, with leading spaces visible: ``␣she − ␣he``."""
        text = ""
        for _, token, weight in sorted(self.terms, key=lambda term: (term[2] < 0, term[0])):
            sign = ("−" if weight < 0 else "") if not text else (" − " if weight < 0 else " + ")
            factor = "" if abs(weight) == 1 else f"{abs(weight):g}·"
            text += sign + factor + token.replace(" ", "␣")
        return text

    def __repr__(self) -> str:
        return f"Observable({self.label + ': ' if self.label else ''}{self})"

    def vector(self, model: TransformerBridge) -> Float[Tensor, " d_model"]:
        """m = W_U n, with n·logits = m·ln_final(x) + n·b_U."""
        self._check(model)
        ids, weights = self._columns(model.W_U)
        return model.W_U[:, ids] @ weights

    def bias(self, model: TransformerBridge) -> Float[Tensor, ""]:
        """n·b_U, the constant that the unembedding adds; 0 in the models of this book."""
        self._check(model)
        ids, weights = self._columns(model.b_U)
        return model.b_U[ids] @ weights

    def measure(self, logits: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch"]:
        """n·logits, in nats."""
        ids, weights = self._columns(logits)
        return logits[..., ids] @ weights

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        ids = torch.tensor([token for token, _, _ in self.terms], device=like.device)
        return ids, like.new_tensor([weight for _, _, weight in self.terms])

    def _check(self, model: TransformerBridge) -> None:
        if model.cfg.model_name != self.model_name:
            raise ValueError(
                f"{self.name} was made for {self.model_name}, "
                f"and this model is {model.cfg.model_name}."
            )
