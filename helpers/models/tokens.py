"""Text to tokens and back, for one model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import device_of

PAD = -1  # fills up the shorter rows of a batch of mixed lengths; no tokenizer has this id


def tokenize(model: TransformerBridge, prompts: Sequence[str]) -> Int[Tensor, "batch pos"]:
    """Token ids of prompts of one length, one beginning-of-sequence token in front of each.

    Raises:
        ValueError: there is no prompt, or their lengths differ; the message says which.
    """
    if isinstance(prompts, str) or not prompts:
        raise ValueError("tokenize takes a non-empty list of prompts.")
    bos = model.tokenizer.bos_token_id
    if bos is None:
        raise ValueError(
            f"the tokenizer of {model.cfg.model_name} has no beginning-of-sequence token."
        )
    rows = [[bos, *model.tokenizer.encode(prompt, add_special_tokens=False)] for prompt in prompts]
    if len(lengths := {len(row) for row in rows}) > 1:
        example = {len(row): prompt for row, prompt in zip(rows, prompts)}
        listed = "; ".join(f"{length} tokens: {example[length]!r}" for length in sorted(lengths))
        raise ValueError(
            f"the prompts have unequal lengths ({listed}). Interventions tied to positions need one length."
        )
    return torch.tensor(rows, device=device_of(model))


def single_token(model: TransformerBridge, text: str) -> int:
    """The id of a text that is one token; mind the leading space, which most tokenizers make part of a word.

    Raises:
        ValueError: the text is none or several tokens.
    """
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        pieces = [model.tokenizer.decode([i]) for i in ids]
        raise ValueError(
            f"{text!r} is {len(ids)} tokens {pieces} for {model.cfg.model_name}; one token is needed here."
        )
    return ids[0]


def is_single(model: TransformerBridge, text: str) -> bool:
    return len(model.tokenizer.encode(text, add_special_tokens=False)) == 1


def token_strings(model: TransformerBridge, tokens: Int[Tensor, " pos"]) -> list[str]:
    """Each token as text, spaces shown as they are."""
    return [model.tokenizer.decode([int(token)]) for token in tokens]


def is_padded(tokens: Int[Tensor, "batch pos"]) -> bool:
    """Whether any row is filled up with ``PAD``."""
    return bool((tokens[:, -1] == PAD).any())
