"""Prompts of different lengths in one batch.

Shorter prompts are filled up on the right. In a causal model no token sees what comes after it, so the filling changes
nothing at a prompt's own positions: no attention mask and no shifted position ids are needed, in any architecture. All
that has to be taken care of is where a prompt ends, and ``helpers.models.last_logits`` reads that from the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from helpers.models import PAD
from helpers.tasks import Prompts


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
        *(tuple(text for part in parts for text in getattr(part, name)) for name in ("texts", "correct_texts", "wrong_texts")),
        tokens=pad_sequence(rows, batch_first=True, padding_value=PAD),
        correct=torch.cat([part.correct for part in parts]),
        wrong=torch.cat([part.wrong for part in parts]),
    )


def mixed(model: TransformerBridge, texts: Sequence[str], correct: Sequence[str], wrong: Sequence[str]) -> Prompts:
    """Prompts of one's own, of any lengths; ``Prompts.of`` without its demand that the lengths be equal.

    Raises:
        ValueError: as ``Prompts.of``, lengths aside.
    """
    if not len(texts) == len(correct) == len(wrong):
        raise ValueError(f"{len(texts)} prompts, {len(correct)} correct and {len(wrong)} wrong answers; these must match.")
    return join([Prompts.of(model, [text], [right], [other]) for text, right, other in zip(texts, correct, wrong)])
