"""Text to tokens and back, and where the prompts of a padded batch end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.checks import checked, whole
from helpers.models.load import device_of

PAD = -1  # pads the shorter prompts of a batch on the right; no tokenizer has this id


def encode(model: TransformerBridge, text: str) -> list[int]:
    """Token ids of a text as it is, nothing in front.

    Raises:
        TypeError: no string.
        ValueError: half of a surrogate pair in the text, which is no character.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no text: give a string.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{text!r} cannot be encoded: character {error.start} is half of a surrogate pair. "
            "Remove it, or read the text with the right encoding."
        ) from error
    return model.tokenizer.encode(text, add_special_tokens=False)


def encode_prompt(model: TransformerBridge, prompt: str) -> list[int]:
    """Token ids of a prompt, with one beginning-of-sequence token in front.

    One that the text begins with, as a chat template writes it, is not doubled.

    Raises:
        TypeError, ValueError: no prompt or an empty one, one that is longer than the model can
            take, or a tokenizer without a beginning-of-sequence token.
    """
    bos, name = model.tokenizer.bos_token_id, model.cfg.model_name
    if bos is None:
        raise ValueError(f"the tokenizer of {name} has no beginning-of-sequence token.")
    ids = encode(model, prompt)
    if not ids:
        raise ValueError(f"the prompt {prompt!r} has no tokens: give a text.")
    ids = ids if ids[0] == bos else [bos, *ids]
    if len(ids) > (most := longest(model)):
        raise ValueError(
            f"the prompt {prompt[:40]!r}… has {len(ids)} tokens; {name} takes at most {most}."
        )
    return ids


def longest(model: TransformerBridge) -> float:
    """The most tokens that a model takes at once."""
    return getattr(model.cfg, "n_ctx", None) or float("inf")


def tokenize(model: TransformerBridge, prompts: Sequence[str]) -> Int[Tensor, "batch pos"]:
    """Token ids of prompts of one length, each with a beginning-of-sequence token in front.

    Raises:
        TypeError, ValueError: no prompts, a prompt that :func:`encode_prompt` refuses, or prompts
            of different lengths, which the message lists.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
        raise ValueError(f"tokenize takes a non-empty list of prompts, not {prompts!r}.")
    rows = [encode_prompt(model, prompt) for prompt in prompts]
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
        TypeError, ValueError: no text, or one that is no token or several.
    """
    ids = encode(model, text)
    if len(ids) != 1:
        pieces = [model.tokenizer.decode([i]) for i in ids]
        raise ValueError(
            f"{text!r} is {len(ids)} tokens {pieces} for {model.cfg.model_name}; "
            "one token is needed here."
        )
    return ids[0]


def is_single(model: TransformerBridge, text: str) -> bool:
    """Whether a text is one token."""
    return len(encode(model, text)) == 1


@checked
def token_strings(model: TransformerBridge, tokens: Int[Tensor, " pos"]) -> list[str]:
    """Each token as text, leading spaces kept; padding is left out.

    Raises:
        TypeError, ValueError: no tensor of one prompt's token ids.
    """
    check_tokens(model, tokens[None])
    return [model.tokenizer.decode([int(token)]) for token in tokens if token != PAD]


def check_tokens(model: TransformerBridge, tokens: Int[Tensor, "batch pos"]) -> None:
    """Check that a batch has prompts for this model, shorter ones padded on the right.

    Raises:
        TypeError: no tensor of whole numbers.
        ValueError: another number of axes, no prompts, prompts that are too long, ids that the
            model does not have, or padding in front of a token.
    """
    if not isinstance(tokens, Tensor) or tokens.dtype not in (torch.int64, torch.int32):
        kind = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
        raise TypeError(f"tokens must be a tensor of whole numbers (int64), not {kind}.")
    if tokens.ndim != 2 or not tokens.numel():
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}; they must be [batch pos], with at least one "
            "prompt of one token."
        )
    name, n_ids, most = model.cfg.model_name, model.cfg.d_vocab, longest(model)
    if tokens.shape[1] > most:
        raise ValueError(f"prompts of {tokens.shape[1]} tokens: {name} takes at most {most}.")
    # All numbers are read at once, since a GPU waits for each reading.
    there = tokens != PAD
    behind = there[:, :-1] | ~there[:, 1:]  # no token stands behind padding
    low, high, right = torch.stack([tokens.min(), tokens.max(), behind.all().long()]).tolist()
    if low < PAD or high >= n_ids:
        raise ValueError(f"token {low if low < PAD else high} is not one of 0 to {n_ids - 1}.")
    if not right or high == PAD or low == PAD and not there[:, 0].all():
        raise ValueError(f"pad prompts with {PAD} on the right, behind at least one token.")


@checked
def is_padded(tokens: Int[Tensor, "batch pos"]) -> bool:
    """Whether some prompts of the batch are shorter than others."""
    return bool((tokens[:, -1] == PAD).any())


@checked
def check_one_length(tokens: Int[Tensor, "batch pos"]) -> None:
    """Raise ValueError for a padded batch, where something is tied to positions."""
    if is_padded(tokens):
        raise ValueError("this is tied to positions: give prompts of one length.")


@checked
def ends(tokens: Int[Tensor, "*batch pos"]) -> Int[Tensor, "*batch"]:
    """Index of each prompt's last token.

    Example:
        >>> ends(torch.tensor([[0, 5, 7], [0, 5, PAD]]))
        tensor([2, 1])
    """
    return (tokens != PAD).sum(-1) - 1


@checked
def at_ends(values: Tensor, tokens: Int[Tensor, "batch pos"], dim: int = 1) -> Tensor:
    """Values at each prompt's last token; ``dim`` is their axis of positions, which goes.

    Raises:
        ValueError: values of other prompts than the tokens are.
    """
    n, n_pos = tokens.shape
    if values.shape[:1] != (n,) or values.shape[whole("dim", dim, 1, values.ndim)] != n_pos:
        raise ValueError(f"values have shape {tuple(values.shape)} for {n} prompts of {n_pos}.")
    if not is_padded(tokens):
        return values.select(dim, -1)
    return values.movedim(dim, 1)[torch.arange(len(tokens), device=values.device), ends(tokens)]


@checked
def resolve_position(tokens: Int[Tensor, "batch pos"], position: int) -> Int[Tensor, " batch"]:
    """Index of a position in each prompt; a negative one counts from the prompt's own end.

    Raises:
        TypeError, ValueError: a prompt that has no such position.
    """
    lengths = ends(tokens) + 1
    shortest = int(lengths.min())
    position = whole("position", position, -shortest, shortest)
    return lengths + position if position < 0 else torch.full_like(lengths, position)
