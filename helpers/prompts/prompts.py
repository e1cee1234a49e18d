"""Prompts with a correct and a wrong one-token answer, as one batch; mixed lengths too.

Shorter prompts of a batch are padded on the right. In a causal model no token sees what comes after it, so the
padding changes nothing at a prompt's own positions: no attention mask and no shifted position ids are needed, in any
architecture. All that has to be taken care of is where a prompt ends, and ``helpers.models.run.last_logits`` reads
that from the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import device_of
from helpers.models.tokens import PAD, single_token, tokenize


@dataclass(frozen=True)
class Prompts:
    """Prompts of one length with their answers, tokenized.

    Attributes:
        texts, correct_texts, wrong_texts: as strings; answers with their leading space.
        tokens: ids, beginning-of-sequence token first.
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
        """Prompts of one's own.

        Raises:
            ValueError: lists of unequal size or empty, prompts of unequal length, an answer that is not one token, or a
                correct answer that equals the wrong one.
        """
        if not len(texts) == len(correct) == len(wrong):
            raise ValueError(
                f"{len(texts)} prompts, {len(correct)} correct and {len(wrong)} wrong answers; these must match."
            )
        tokens = tokenize(model, list(texts))
        ids = [[single_token(model, answer) for answer in answers] for answers in (correct, wrong)]
        if same := [text for text, right, other in zip(texts, *ids) if right == other]:
            raise ValueError(
                f"the correct and the wrong answer are the same token for {same[0]!r}."
            )
        right, other = (torch.tensor(row, device=device_of(model)) for row in ids)
        return cls(tuple(texts), tuple(correct), tuple(wrong), tokens, right, other)

    def at(self, rows: Sequence[int] | Int[Tensor, " rows"]) -> Prompts:
        """Some of the prompts, by index."""
        rows = torch.as_tensor(rows)
        there = rows.to(self.tokens.device)
        texts = (
            tuple(column[i] for i in rows.tolist())
            for column in (self.texts, self.correct_texts, self.wrong_texts)
        )
        return Prompts(*texts, self.tokens[there], self.correct[there], self.wrong[there])

    @property
    def n_pos(self) -> int:
        """Prompt length in tokens, the beginning-of-sequence token included."""
        return self.tokens.shape[1]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Task:
    """A task split in two halves that share no country (CCC) or no name (IOI).

    Attributes:
        name, template: which task, and its prompt template.
        train, test: the prompts.
        dropped: why candidates were left out, and how many were.
    """

    name: str
    template: str
    train: Prompts
    test: Prompts
    dropped: dict[str, int]

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items()) or "none"
        return f"{self.name}: {len(self.train)} train and {len(self.test)} test prompts of {self.train.n_pos} tokens; left out: {dropped}"


def join(parts: Sequence[Prompts]) -> Prompts:
    """Prompts of several tasks or templates as one set, padded with ``PAD`` where their lengths differ.

    Prompts of one length stay as they are. Padded sets work wherever the book takes prompts, except with interventions
    that are tied to positions, which refuse them.

    Raises:
        ValueError: there is nothing to join.
    """
    if not parts:
        raise ValueError("there are no prompts to join.")
    rows = [row for part in parts for row in part.tokens]
    return Prompts(
        *(
            tuple(text for part in parts for text in getattr(part, name))
            for name in ("texts", "correct_texts", "wrong_texts")
        ),
        tokens=pad_sequence(rows, batch_first=True, padding_value=PAD),
        correct=torch.cat([part.correct for part in parts]),
        wrong=torch.cat([part.wrong for part in parts]),
    )


def mixed(
    model: TransformerBridge, texts: Sequence[str], correct: Sequence[str], wrong: Sequence[str]
) -> Prompts:
    """Prompts of one's own, of any lengths; ``Prompts.of`` without its demand that the lengths be equal.

    Raises:
        ValueError: as ``Prompts.of``, lengths aside.
    """
    if not len(texts) == len(correct) == len(wrong):
        raise ValueError(
            f"{len(texts)} prompts, {len(correct)} correct and {len(wrong)} wrong answers; these must match."
        )
    return join(
        [
            Prompts.of(model, [text], [right], [other])
            for text, right, other in zip(texts, correct, wrong)
        ]
    )
