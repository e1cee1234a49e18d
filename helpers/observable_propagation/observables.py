"""Observables: linear functionals on a model's logits, such as " she" minus " he".

Section 3, observable propagation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked, real, vectors
from helpers.models.direct import token_vectors
from helpers.models.run import unembed
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
    @checked
    def of(cls, model: TransformerBridge, weights: Mapping[str, float]) -> Observable:
        """Σ weight · logit(token), for example ``{" she": 1, " he": -1}``; mind the leading spaces.

        Raises:
            TypeError, ValueError: a text that is not one token, a weight that is no finite number,
                or only zeros.
        """
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

    @checked
    def vector(
        self, model: TransformerBridge, logits: Float[Tensor, "*batch d_vocab"] | None = None
    ) -> Float[Tensor, "*batch d_model"]:
        """m = W_U n, with n·logits = m·ln_final(x) + n·b_U.

        Args:
            logits: where to take the gradient if the model caps its logits, as Gemma 2 does.

        Raises:
            ValueError: an observable of another model, or capped logits and none given.
        """
        return self._read_with(model, logits)[0]

    @checked
    def bias(
        self, model: TransformerBridge, logits: Float[Tensor, "*batch d_vocab"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """n·b_U, the constant that the unembedding adds; 0 in the models of this book."""
        return self._read_with(model, logits)[1]

    def measure(self, logits: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch"]:
        """n·logits, in nats."""
        most = self.terms[-1][0]  # terms are in order of id
        if vectors("logits", logits).shape[-1] <= most:
            raise ValueError(f"{self} needs logits of more than {most} tokens.")
        tokens, weights = self._split(logits)
        return logits[..., tokens] @ weights

    @checked
    def measure_stream(
        self, model: TransformerBridge, x: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch"]:
        """n·logits, from the residual stream in front of ``ln_final``."""
        self._check(model)
        tokens, weights = self._split(x)
        return unembed(model, x, tokens) @ weights

    def _split(self, like: Tensor) -> tuple[Int[Tensor, " term"], Float[Tensor, " term"]]:
        tokens = torch.tensor([token for token, _, _ in self.terms], device=like.device)
        return tokens, like.new_tensor([weight for _, _, weight in self.terms])

    def _read_with(self, model: TransformerBridge, logits: Tensor | None) -> tuple[Tensor, Tensor]:
        self._check(model)
        tokens, weights = self._split(model.W_U)
        at = None if logits is None else logits[..., tokens]
        tokens = tokens if at is None else tokens.expand_as(at)
        vectors, constants = token_vectors(model, tokens, at)
        return vectors.mT @ weights, constants @ weights

    def _check(self, model: TransformerBridge) -> None:
        if model.cfg.model_name != self.model_name:
            raise ValueError(
                f"{self} was made for {self.model_name}, and this model is {model.cfg.model_name}."
            )
