"""Resume a finished run from a layer and a position, with an edit of the residual stream there.

An edit changes nothing in the layers before it, nor, in a causal model, at earlier positions. So
one run of the prompts serves all edits: each starts from the stream and from the attention keys and
values that the run left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from helpers.models.run import last_logits_after
from helpers.models.tokens import check_one_length

Edit = Callable[[Float[Tensor, "row d_model"]], Float[Tensor, "row d_model"]]


@dataclass(frozen=True)
class Run:
    """A finished run of prompts of one length; :meth:`of` makes it.

    Attributes:
        tokens: the prompts.
        logits: after each prompt's last token.
        stream: the residual stream in front of each layer, and last in front of ``ln_final``.
        past: attention keys and values of each layer, [prompt kv_head pos d_head].
    """

    tokens: Int[Tensor, "prompt pos"]
    logits: Float[Tensor, "prompt d_vocab"]
    stream: tuple[Float[Tensor, "prompt pos d_model"], ...]
    past: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: TransformerBridge, tokens: Int[Tensor, "prompt pos"], *, batch_size: int = 64
    ) -> Run:
        """Run the prompts, ``batch_size`` in one forward pass.

        Raises:
            ValueError: prompts of several lengths.
        """
        check_one_length(tokens)
        names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.cfg.n_layers)]
        streams = {name: [] for name in [*names, "ln_final.hook_in"]}

        def keep(value: Tensor, hook, name: str) -> None:
            streams[name].append(value.clone())  # some models add to the stream in place

        logits, caches = [], []
        with model.hooks(fwd_hooks=[(name, partial(keep, name=name)) for name in streams]):
            for chunk in tokens.split(batch_size):
                caches.append(DynamicCache())
                logits.append(last_logits_after(model, chunk, caches[-1]))
        past = []
        for layers in zip(*(cache.layers for cache in caches)):
            keys = torch.cat([layer.keys for layer in layers])
            past.append((keys, torch.cat([layer.values for layer in layers])))
        return cls(tokens, torch.cat(logits), tuple(map(torch.cat, streams.values())), tuple(past))

    def edited(
        self,
        model: TransformerBridge,
        layer: int,
        position: int,
        edit: Edit,
        rows: Int[Tensor, " row"] | None = None,
    ) -> Float[Tensor, "row d_vocab"]:
        """Logits after the last token, with the stream edited in front of a layer at one position.

        Args:
            model: as it was in the run; hooks on it act on what is computed again.
            layer, position: where; negative positions count from the end.
            edit: the stream there, [row d_model], to its new value; gradients pass through it.
            rows: which prompts, also several times the same; all of them if not given.

        Raises:
            ValueError: no such layer or position.
        """
        n_pos = self.tokens.shape[1]
        if not 0 <= layer < model.cfg.n_layers:
            raise ValueError(f"layer {layer} is not one of 0 to {model.cfg.n_layers - 1}.")
        if not -n_pos <= position < n_pos:
            raise ValueError(f"position {position} is not in prompts of {n_pos} tokens.")
        rows, first = self._all if rows is None else rows, position % n_pos
        x = self.stream[layer][rows, first:]
        x[:, 0] = edit(x[:, 0])  # x is a copy
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self.past if first else ()):
            cache.update(keys[rows, :, :first], values[rows, :, :first], number)
        with _entered(model, layer, x):
            return last_logits_after(model, self.tokens[rows, first:], cache)

    @torch.no_grad()
    def steered(
        self,
        model: TransformerBridge,
        layer: int,
        position: int,
        vectors: Float[Tensor, "vector d_model"],
        rows: Int[Tensor, " row"] | None = None,
        *,
        batch_size: int = 64,
    ) -> Float[Tensor, "vector row d_vocab"]:
        """Logits as of :meth:`edited`, with every vector added to every prompt's stream."""
        rows = self._all if rows is None else rows
        numbers = torch.arange(len(vectors), device=rows.device)
        logits = []
        for pairs in torch.cartesian_prod(numbers, rows).split(batch_size):
            vector, row = pairs.to(self.tokens.device).unbind(1)
            add = vectors[vector].__add__
            logits.append(self.edited(model, layer, position, add, row))
        return torch.cat(logits).unflatten(0, (len(vectors), len(rows)))

    @property
    def _all(self) -> Int[Tensor, " prompt"]:
        return torch.arange(len(self.tokens), device=self.tokens.device)


@contextmanager
def _entered(
    model: TransformerBridge, layer: int, x: Float[Tensor, "row pos d_model"]
) -> Iterator[None]:
    """The model entered in front of a layer with a given stream; earlier layers are skipped."""
    before = list(model.blocks)[:layer]
    # What a block hands to its architecture's loop over blocks.
    in_tuple = model.cfg.architecture == "GPTNeoForCausalLM"

    def skip(stream: Tensor, *args, **kwargs) -> Tensor | tuple[Tensor]:
        return (stream,) if in_tuple else stream

    try:
        for block in before:
            block.__dict__["forward"] = skip  # shadows the class's method
        with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", lambda old, hook: x)]):
            yield
    finally:
        for block in before:
            block.__dict__.pop("forward", None)
