"""Observables: linear functionals on a model's logits, such as " she" minus " he".

Section 3, observable propagation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import real, vectors
from helpers.models.tokens import single_token


@dataclass(frozen=True)
class Observable:
    """A weighted sum of logits, n in [d_vocab].

    Attributes:
        terms: (token id, token text, weight) in order of id, no weight 0.
        model_name: whose tokenizer the ids belong to.

    Example:
        :meth:`of` takes the ids from a model's tokenizer; here they are those of a vocabulary of
        three.

        >>> n = Observable(((0, " she", 1.0), (2, " he", -1.0)), "toy")
        >>> n.measure(torch.tensor([3.0, 9.0, 1.0]))  # " she", another token, " he"
        tensor(2.)
        >>> print(n)
        ␣she − ␣he
    """

    terms: tuple[tuple[int, str, float], ...]
    model_name: str

    @classmethod
    def of(cls, model: TransformerBridge, weights: Mapping[str, float]) -> Observable:
        """Σ weight · logit(token), for example ``{" she": 1, " he": -1}``; mind the leading spaces.

        Raises:
            TypeError, ValueError: a text that is not one token, a weight that is no finite number,
                or only zeros.
        """
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights must be a dictionary of tokens and numbers, not {weights!r}.")
        terms = []
        for text, weight in weights.items():
            if weight := real(f"the weight of {text!r}", weight):
                terms.append((single_token(model, text), text, weight))
        if not terms:
            raise ValueError("every weight is 0: this observable measures nothing.")
        return cls(tuple(sorted(terms)), model.cfg.model_name)

    def __str__(self) -> str:
        """The sum, positive terms first, with leading spaces visible: ``␣she − ␣he``."""
        text = ""
        for _, token, weight in sorted(self.terms, key=lambda term: (term[2] < 0, term[0])):
            sign = ("−" if weight < 0 else "") if not text else (" − " if weight < 0 else " + ")
            factor = "" if abs(weight) == 1 else f"{abs(weight):g}·"
            text += sign + factor + token.replace(" ", "␣")
        return text

    def vector(self, model: TransformerBridge) -> Float[Tensor, " d_model"]:
        """m = W_U n, with n·logits = m·ln_final(x) + n·b_U."""
        return self._weighted(model, model.W_U)

    def bias(self, model: TransformerBridge) -> Float[Tensor, ""]:
        """n·b_U, the constant that the unembedding adds; 0 in the models of this book."""
        return self._weighted(model, model.b_U)

    def measure(self, logits: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch"]:
        """n·logits, in nats."""
        most = self.terms[-1][0]  # terms are in order of id
        if vectors("logits", logits).shape[-1] <= most:
            raise ValueError(f"{self} needs logits of more than {most} tokens.")
        ids = torch.tensor([token for token, _, _ in self.terms], device=logits.device)
        return logits[..., ids] @ logits.new_tensor([weight for _, _, weight in self.terms])

    def _weighted(self, model: TransformerBridge, columns: Tensor) -> Tensor:
        if model.cfg.model_name != self.model_name:
            raise ValueError(
                f"{self} was made for {self.model_name}, and this model is {model.cfg.model_name}."
            )
        return self.measure(columns)
