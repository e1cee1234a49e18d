"""Text to tokens and back, and where the prompts of a padded batch end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import device_of

PAD = -1  # pads the shorter prompts of a batch on the right; no tokenizer has this id


def tokenize(model: TransformerBridge, prompts: Sequence[str]) -> Int[Tensor, "batch pos"]:
    """Token ids of prompts of one length, each with the beginning-of-sequence token in front.

    Raises:
        ValueError: no prompts, or prompts of different lengths, which the message lists.
    """
    if isinstance(prompts, str) or not prompts:
        raise ValueError("tokenize takes a non-empty list of prompts.")
    bos = model.tokenizer.bos_token_id
    if bos is None:
        name = model.cfg.model_name
        raise ValueError(f"the tokenizer of {name} has no beginning-of-sequence token.")
    rows = [[bos, *model.tokenizer.encode(prompt, add_special_tokens=False)] for prompt in prompts]
    example = {len(row): prompt for row, prompt in zip(rows, prompts)}
    if len(example) > 1:
        listed = "; ".join(f"{length} tokens: {example[length]!r}" for length in sorted(example))
        raise ValueError(
            f"the prompts have unequal lengths ({listed}). "
            "Interventions tied to positions need one length."
        )
    return torch.tensor(rows, device=device_of(model))


def single_token(model: TransformerBridge, text: str) -> int:
    """The id of a text that is one token; most tokenizers make a leading space part of the word.

    Raises:
        ValueError: the text is no token or several.
    """
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        pieces = [model.tokenizer.decode([i]) for i in ids]
        raise ValueError(
            f"{text!r} is {len(ids)} tokens {pieces} for {model.cfg.model_name}; "
            "one token is needed here."
        )
    return ids[0]


def is_single(model: TransformerBridge, text: str) -> bool:
    """Whether a text is one token."""
    return len(model.tokenizer.encode(text, add_special_tokens=False)) == 1


def token_strings(model: TransformerBridge, tokens: Int[Tensor, " pos"]) -> list[str]:
    """Each token as text, leading spaces kept."""
    return [model.tokenizer.decode([int(token)]) for token in tokens]


def is_padded(tokens: Int[Tensor, "batch pos"]) -> bool:
    """Whether some prompts of the batch are shorter than others."""
    return bool((tokens[:, -1] == PAD).any())


def check_one_length(tokens: Int[Tensor, "batch pos"]) -> None:
    """Raise ValueError for a padded batch, where something is tied to positions."""
    if is_padded(tokens):
        raise ValueError("this is tied to positions: give prompts of one length.")


def ends(tokens: Int[Tensor, "batch pos"]) -> Int[Tensor, " batch"]:
    """Index of each prompt's last token.

    Example:
        >>> ends(torch.tensor([[0, 5, 7], [0, 5, PAD]]))
        tensor([2, 1])
    """
    return (tokens != PAD).sum(-1) - 1


def at_ends(values: Tensor, tokens: Int[Tensor, "batch pos"], dim: int = 1) -> Tensor:
    """Values at each prompt's last token; ``dim`` is their axis of positions, which goes."""
    if not is_padded(tokens):
        return values.select(dim, -1)
    return values.movedim(dim, 1)[torch.arange(len(tokens), device=values.device), ends(tokens)]


def resolve_position(tokens: Int[Tensor, "batch pos"], position: int) -> Int[Tensor, " batch"]:
    """Index of a position in each prompt; a negative one counts from the prompt's own end.

    Raises:
        ValueError: a prompt that has no such position.
    """
    lengths = ends(tokens) + 1
    shortest = int(lengths.min())
    if not -shortest <= position < shortest:
        raise ValueError(f"no position {position} in a prompt of {shortest} tokens.")
    return lengths + position if position < 0 else torch.full_like(lengths, position)
