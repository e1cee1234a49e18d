"""Prompts with a correct and a wrong one-token answer, as one batch.

Prompts of several lengths are padded on the right. In a causal model no token sees what comes
after it, so padding needs neither attention mask nor position ids, in any architecture; only where
a prompt ends has to be known (``helpers.models.tokens.ends``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from helpers.models import checks
from helpers.models.load import device_of
from helpers.models.tokens import PAD, single_token, tokenize


@dataclass(frozen=True)
class Prompts:
    """Tokenized prompts with their answers.

    Attributes:
        texts, correct_texts, wrong_texts: as strings; answers with their leading space.
        tokens: ids, beginning-of-sequence token first, shorter prompts padded with ``PAD``.
        correct, wrong: ids of the answers.
    """

    texts: tuple[str, ...]
    correct_texts: tuple[str, ...]
    wrong_texts: tuple[str, ...]
    tokens: Int[Tensor, "batch pos"]
    correct: Int[Tensor, " batch"]
    wrong: Int[Tensor, " batch"]

    @classmethod
    def of(
        cls,
        model: TransformerBridge,
        texts: Sequence[str],
        correct: Sequence[str],
        wrong: Sequence[str],
    ) -> Prompts:
        """Prompts of one length.

        Raises:
            ValueError: lists of unequal size or empty, prompts of unequal length, an answer that is
                not one token, or a correct answer that equals the wrong one.
        """
        lists = {"prompts": texts, "correct answers": correct, "wrong answers": wrong}
        texts, correct, wrong = (checks.texts(name, lists[name]) for name in lists)
        if not len(texts) == len(correct) == len(wrong):
            raise ValueError(
                f"{len(texts)} prompts, {len(correct)} correct and {len(wrong)} wrong answers; "
                "these must match."
            )
        tokens = tokenize(model, list(texts))
        right = torch.tensor([single_token(model, answer) for answer in correct])
        other = torch.tensor([single_token(model, answer) for answer in wrong])
        for text, same in zip(texts, right == other):
            if same:
                raise ValueError(f"both answers are the same token for {text!r}.")
        device = device_of(model)
        texts = tuple(texts), tuple(correct), tuple(wrong)
        return cls(*texts, tokens, right.to(device), other.to(device))

    def at(self, rows: Sequence[int] | Int[Tensor, " rows"]) -> Prompts:
        """Some of the prompts, by index."""
        rows = checks.rows(rows, len(self))
        texts = []
        for column in (self.texts, self.correct_texts, self.wrong_texts):
            texts.append(tuple(column[i] for i in rows.tolist()))
        rows = rows.to(self.tokens.device)
        return Prompts(*texts, self.tokens[rows], self.correct[rows], self.wrong[rows])

    @property
    def n_pos(self) -> int:
        """Length of the longest prompt in tokens, the beginning-of-sequence token included."""
        return self.tokens.shape[1]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Task:
    """A task in two halves that share no country (CCC) or no name (IOI, pronoun).

    Attributes:
        name, template: of the task.
        train, test: the prompts.
        dropped: number of candidates left out, by reason.
    """

    name: str
    template: str
    train: Prompts
    test: Prompts
    dropped: dict[str, int]

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        return (
            f"{self.name}: {len(self.train)} train and {len(self.test)} test prompts of "
            f"{self.train.n_pos} tokens; left out: {dropped or 'none'}"
        )


def join(parts: Sequence[Prompts]) -> Prompts:
    """Several sets of prompts as one, padded where their lengths differ.

    Raises:
        ValueError: no sets.
    """
    if not isinstance(parts, Sequence) or {*map(type, parts)} != {Prompts}:
        raise ValueError("join takes a non-empty list of Prompts.")
    texts = []
    for name in ("texts", "correct_texts", "wrong_texts"):
        texts.append(sum((getattr(part, name) for part in parts), ()))
    rows = [row for part in parts for row in part.tokens]
    tokens = pad_sequence(rows, batch_first=True, padding_value=PAD)
    correct = torch.cat([part.correct for part in parts])
    return Prompts(*texts, tokens, correct, torch.cat([part.wrong for part in parts]))
