"""Run the start of prompts once: its attention keys and values are kept, and what comes after it is run on them.

In a causal model no position sees a later one. So what lies before the first position that is intervened on is the same
however strong the intervention is, and prompts that begin with the same tokens share what happens at those.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from helpers.models.load import kv_heads
from helpers.models.run import last_logits
from helpers.models.tokens import check_one_length, is_padded

# A run of its own reads all weights once more, which on a CPU takes as long as this many further positions in a run.
# On a GPU its many small launches take longer than the positions of the book's prompts.
WORTH = 40
LIMIT = 1 << 30  # bytes of keys and values kept; prompts that need more are run whole

# The model steered, inside a ``with`` block: each group as often as said, one row after the other, at those positions.
Steered = Callable[[int, slice], AbstractContextManager]


@dataclass(frozen=True)
class Prefix:
    """The first positions of some prompts, as later positions see them.

    Attributes:
        layers: keys and values of each layer, [row kv_head pos d_head].
        length: number of positions.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    length: int

    @classmethod
    def run(cls, model: TransformerBridge, tokens: Int[Tensor, "row pos"]) -> Prefix:
        """Run the model on these positions; hooks that are on it act."""
        check_one_length(tokens)
        cache = DynamicCache()
        _last(model, tokens, cache)
        return cls(tuple((layer.keys, layer.values) for layer in cache.layers), tokens.shape[1])

    def rows(self, index: Int[Tensor, " new_row"]) -> Prefix:
        """Some rows of it, also several times the same."""
        return Prefix(
            tuple((keys[index], values[index]) for keys, values in self.layers), self.length
        )

    def last_logits(
        self, model: TransformerBridge, tokens: Int[Tensor, "row pos"]
    ) -> Float[Tensor, "row d_vocab"]:
        """Logits after the last of the tokens that follow this prefix; hooks see the positions of these tokens alone."""
        cache = DynamicCache()  # a new one, because running the model adds to it
        for layer, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, layer)
        return _last(model, tokens, cache)


@dataclass(frozen=True)
class Runs:
    """Prompts that are run again and again, each time steered otherwise.

    Attributes:
        tokens: the prompts, [prompt pos].
        fixed: the positions before the first one that is intervened on, run once and for all; None if there are none.
        shared: how many tokens all prompts begin with.
    """

    tokens: Int[Tensor, "prompt pos"]
    fixed: Prefix | None
    shared: int

    @classmethod
    @torch.no_grad()
    def of(cls, model: TransformerBridge, tokens: Int[Tensor, "prompt pos"], first: int) -> Runs:
        """Prepare runs in which nothing is done to the positions before ``first``."""
        if is_padded(tokens):
            return cls(tokens, None, 0)
        values = 2 * model.cfg.n_layers * kv_heads(model) * model.cfg.d_head * len(tokens) * first
        fixed = (
            Prefix.run(model, tokens[:, :first])
            if 0 < values * model.W_U.element_size() <= LIMIT
            else None
        )
        same = (tokens == tokens[0]).all(0)[
            :-1
        ]  # the last token is always run: its logits are wanted
        return cls(tokens, fixed, int(same.long().cumprod(0).sum()))

    def logits(
        self, model: TransformerBridge, steered: Steered, groups: int, rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "group row d_vocab"]:
        """Last-position logits of some of the prompts in every group: a group is what is steered in one way, β = 1 say.

        Args:
            model: as it was when these runs were prepared.
            steered: puts the interventions on it, given how many rows there are of each group and at which positions.
            groups: their number.
            rows: which prompts.
        """
        tokens, n = self.tokens[rows], len(rows)
        if self.fixed is not None:
            start = self.fixed.rows(rows.repeat(groups))
        elif tokens.device.type == "cpu" and self.shared * groups * (n - 1) >= WORTH:
            with steered(1, slice(0, self.shared)):
                start = Prefix.run(model, tokens[:1, : self.shared].expand(groups, -1))
            start = start.rows(torch.arange(groups, device=tokens.device).repeat_interleave(n))
        else:
            with steered(n, slice(None)):
                return last_logits(model, tokens.repeat(groups, 1)).unflatten(0, (groups, n))
        with steered(n, slice(start.length, None)):
            return start.last_logits(model, tokens[:, start.length :].repeat(groups, 1)).unflatten(
                0, (groups, n)
            )


def _last(
    model: TransformerBridge, tokens: Int[Tensor, "row pos"], cache: DynamicCache
) -> Float[Tensor, "row d_vocab"]:
    last = torch.tensor(
        [tokens.shape[1] - 1], device=tokens.device
    )  # by a tensor, as helpers.models.run.last_logits says
    return model.original_model(
        input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=last
    ).logits[:, -1]
