"""Run the start of prompts once and keep its attention keys and values for later runs.

In a causal model no position sees a later one: what lies before the first position that is
intervened on does not depend on the intervention, and prompts that begin with the same tokens
share that start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from helpers.models.blocks import kv_heads
from helpers.models.checks import checked, whole
from helpers.models.formulas import facts, require
from helpers.models.run import last_logits, last_logits_after
from helpers.models.tokens import check_one_length, check_tokens, ends, is_padded

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
            ValueError: prompts of several lengths, or a model that keeps more of earlier tokens
                than keys and values, as Mamba does.
        """
        check_tokens(model, tokens)
        check_one_length(tokens)
        require(model, "cache")
        cache = DynamicCache()
        last_logits_after(model, tokens, cache)
        return cls.of([cache])

    @classmethod
    def of(cls, caches: Sequence[DynamicCache]) -> Prefix:
        """What runs of some rows each have left in their caches."""
        joined = []
        for layers in zip(*(cache.layers for cache in caches)):
            keys = torch.cat([layer.keys for layer in layers])
            joined.append((keys, torch.cat([layer.values for layer in layers])))
        return cls(tuple(joined), joined[0][0].shape[2])

    def cache(self) -> DynamicCache:
        """A new cache with these positions: a run on it adds its own."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, layer)
        return cache

    @checked
    def rows(self, index: Int[Tensor, " new_row"], length: int | None = None) -> Prefix:
        """Some of the rows, repeated or not; only the first positions if a length is given.

        Raises:
            TypeError, ValueError: a length that is no whole number up to this prefix's own.
        """
        length = self.length if length is None else whole("length", length, 0, self.length + 1)
        layers = []
        for keys, values in self.layers if length else ():
            layers.append((keys[index, :, :length], values[index, :, :length]))
        return Prefix(tuple(layers), length)

    @checked
    def last_logits(
        self, model: TransformerBridge, tokens: Int[Tensor, "row pos"]
    ) -> Float[Tensor, "row d_vocab"]:
        """Last-token logits of the tokens that follow; hooks see only the positions of these."""
        if self.layers and len(tokens) != len(self.layers[0][0]):
            raise ValueError(f"{len(tokens)} rows follow a prefix of {len(self.layers[0][0])}.")
        return last_logits_after(model, tokens, self.cache())


@dataclass(frozen=True)
class Runs:
    """Prompts that are run again and again, each time steered in another way; :meth:`of` makes it.

    Attributes:
        tokens: the prompts, padded where they differ in length.
        fixed: positions before the first one that is steered, run once; None if there are none.
        shared: how many tokens all prompts begin with.
        by_length: of prompts of several lengths, the runs of each length.
    """

    tokens: Int[Tensor, "prompt pos"]
    fixed: Prefix | None
    shared: int
    by_length: dict[int, Runs]

    @classmethod
    @torch.no_grad()
    def of(cls, model: TransformerBridge, tokens: Int[Tensor, "prompt pos"], first: int) -> Runs:
        """Prepare runs that leave the positions before ``first`` alone."""
        check_tokens(model, tokens)
        first = whole("first", first, 0, tokens.shape[1])
        if "cache" in facts(model).faults:  # as in Mamba: every run is a whole one
            return cls(tokens, None, 0, {})
        if is_padded(tokens):
            lengths = ends(tokens) + 1
            parts = {}
            for length in lengths.unique().tolist():
                some = tokens[lengths == length, :length]
                parts[length] = cls(tokens[:, :length], None, shared_start(some), {})
            return cls(tokens, None, 0, parts)
        values = 2 * model.cfg.n_layers * kv_heads(model) * model.cfg.d_head * len(tokens) * first
        fits = 0 < values * model.W_U.element_size() <= LIMIT
        fixed = Prefix.run(model, tokens[:, :first]) if fits else None
        return cls(tokens, fixed, shared_start(tokens), {})

    @checked
    def logits(
        self, model: TransformerBridge, steered: Steered, rows: Int[Tensor, "group row"]
    ) -> Float[Tensor, "group row d_vocab"]:
        """Last-token logits of each group's prompts; a group is what is steered in one way.

        Args:
            model: as it was when these runs were prepared.
            steered: puts the interventions on it, given how many rows there are of each group and
                at which positions.
            rows: which prompts.
        """
        if self.by_length:
            return self._of_several_lengths(model, steered, rows)
        (groups, n), tokens = rows.shape, self.tokens[rows.flatten()]
        if self.fixed is not None:
            start = self.fixed.rows(rows.flatten())
        elif tokens.device.type == "cpu" and self.shared * groups * (n - 1) >= WORTH:
            with steered(1, slice(0, self.shared)):
                start = Prefix.run(model, self.tokens[rows[:, 0], : self.shared])
            start = start.rows(torch.arange(groups).repeat_interleave(n))
        else:
            with steered(n, slice(None)):
                return last_logits(model, tokens).unflatten(0, (groups, n))
        with steered(n, slice(start.length, None)):
            logits = start.last_logits(model, tokens[:, start.length :])
        return logits.unflatten(0, (groups, n))

    def _of_several_lengths(
        self, model: TransformerBridge, steered: Steered, rows: Int[Tensor, "group row"]
    ) -> Float[Tensor, "group row d_vocab"]:
        """One length after the other where that saves enough padding, else all of them padded."""
        lengths = ends(self.tokens[rows]) + 1  # [group row]
        alike = bool((lengths == lengths[0]).all())
        padding = int((lengths.max() - lengths).sum())
        found = lengths[0].unique().tolist()
        if not (rows.device.type == "cpu" and alike and padding >= WORTH * (len(found) - 1)):
            with steered(rows.shape[1], slice(None)):
                return last_logits(model, self.tokens[rows.flatten()]).unflatten(0, rows.shape)
        columns, logits = [], []
        for length in found:
            columns.append((lengths[0] == length).nonzero()[:, 0])
            runs = self.by_length[length]
            logits.append(runs.logits(model, steered, rows[:, columns[-1]]))
        return torch.cat(logits, dim=1)[:, torch.cat(columns).argsort()]


@checked
def shared_start(tokens: Int[Tensor, "prompt pos"]) -> int:
    """Tokens that all prompts begin with, but for the last one, which is run for its logits."""
    same = (tokens == tokens[0]).all(0)[:-1]
    return int(same.long().cumprod(0).sum())
