"""Run the start of prompts once and keep its attention keys and values for later runs.

In a causal model no position sees a later one: what lies before the first position that is
intervened on does not depend on the intervention, and prompts that begin with the same tokens
share that start.
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
from helpers.models.run import last_logits, last_logits_after
from helpers.models.tokens import check_one_length, is_padded

# Positions that must be saved to pay for a forward pass more, which reads all weights again on a
# CPU; on a GPU its many small kernels take longer than the positions of the book's prompts.
WORTH = 40
LIMIT = 1 << 30  # bytes of keys and values kept; prompts that need more are run whole

# Steers the model inside a ``with`` block, given the rows of each group and the positions in the
# run.
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
        """Run the model on these positions; hooks on the model act.

        Raises:
            ValueError: prompts of several lengths.
        """
        check_one_length(tokens)
        cache = DynamicCache()
        last_logits_after(model, tokens, cache)
        return cls(tuple((layer.keys, layer.values) for layer in cache.layers), tokens.shape[1])

    def rows(self, index: Int[Tensor, " new_row"]) -> Prefix:
        """Some of the rows, repeated or not."""
        layers = tuple((keys[index], values[index]) for keys, values in self.layers)
        return Prefix(layers, self.length)

    def last_logits(
        self, model: TransformerBridge, tokens: Int[Tensor, "row pos"]
    ) -> Float[Tensor, "row d_vocab"]:
        """Last-token logits of the tokens that follow; hooks see only the positions of these."""
        cache = DynamicCache()  # a new one, because a run adds to it
        for layer, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, layer)
        return last_logits_after(model, tokens, cache)


@dataclass(frozen=True)
class Runs:
    """Prompts that are run again and again, each time steered in another way.

    Attributes:
        tokens: the prompts.
        fixed: the positions before the first one that is intervened on, if there are any.
        shared: number of tokens that all prompts begin with.
    """

    tokens: Int[Tensor, "prompt pos"]
    fixed: Prefix | None
    shared: int

    @classmethod
    @torch.no_grad()
    def of(cls, model: TransformerBridge, tokens: Int[Tensor, "prompt pos"], first: int) -> Runs:
        """Prepare runs that leave the positions before ``first`` alone."""
        if is_padded(tokens):
            return cls(tokens, None, 0)
        cfg = model.cfg
        values = 2 * cfg.n_layers * kv_heads(model) * cfg.d_head * len(tokens) * first
        keep = 0 < values * model.W_U.element_size() <= LIMIT
        same = (tokens == tokens[0]).all(0)[:-1]  # not the last token: its logits are wanted
        shared = int(same.long().cumprod(0).sum())
        return cls(tokens, Prefix.run(model, tokens[:, :first]) if keep else None, shared)

    def logits(
        self, model: TransformerBridge, steered: Steered, groups: int, rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "group row d_vocab"]:
        """Last-token logits of some prompts, once for each group, such as β = 1 and β = −1.

        Args:
            steered: steers the rows of a batch, group after group.
            rows: which prompts.
        """
        tokens, n = self.tokens[rows], len(rows)
        if self.fixed is not None:
            start = self.fixed.rows(rows.repeat(groups))
        elif tokens.device.type == "cpu" and self.shared * groups * (n - 1) >= WORTH:
            with steered(1, slice(0, self.shared)):
                start = Prefix.run(model, tokens[:1, : self.shared].expand(groups, -1))
            start = start.rows(torch.arange(groups).repeat_interleave(n))
        else:
            with steered(n, slice(None)):
                return last_logits(model, tokens.repeat(groups, 1)).unflatten(0, (groups, n))
        with steered(n, slice(start.length, None)):
            logits = start.last_logits(model, tokens[:, start.length :].repeat(groups, 1))
        return logits.unflatten(0, (groups, n))
