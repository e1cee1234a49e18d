"""Resume a finished run from a layer and a position, with an edit of the residual stream there.

An edit changes nothing in the layers before it, nor, in a causal model, at earlier positions. So
one run of the prompts serves all edits: each starts from the stream and from the attention keys and
values that the run left. What comes out is the stream at the last token in front of ``ln_final``,
which gives an observable without the logits of the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from weakref import ReferenceType, ref

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from helpers.models import checks, prefix
from helpers.models.checks import checked, whole
from helpers.models.formulas import require
from helpers.models.hooks import hooked
from helpers.models.prefix import Prefix
from helpers.models.tokens import check_one_length, check_tokens

END = "ln_final.hook_in"
Edit = Callable[[Float[Tensor, "row d_model"]], Float[Tensor, "row d_model"]]


@dataclass(frozen=True)
class Run:
    """A finished run of prompts of one length; :meth:`of` makes it.

    Attributes:
        tokens: the prompts.
        stream: the residual stream in front of each layer, and last in front of ``ln_final``.
        past: attention keys and values of all positions.
        of_model: the model that was run.
    """

    tokens: Int[Tensor, "prompt pos"]
    stream: tuple[Float[Tensor, "prompt pos d_model"], ...]
    past: Prefix
    of_model: ReferenceType[TransformerBridge] = field(repr=False)

    @classmethod
    @torch.no_grad()
    @checked
    def of(
        cls, model: TransformerBridge, tokens: Int[Tensor, "prompt pos"], *, batch_size: int = 64
    ) -> Run:
        """Run the prompts, ``batch_size`` in one forward pass.

        Raises:
            TypeError, ValueError: prompts of several lengths, or that the model cannot take, or a
                model that keeps more of earlier tokens than keys and values, as Mamba does.
        """
        check_tokens(model, tokens)
        check_one_length(tokens)
        require(model, "cache")
        size = whole("batch_size", batch_size)
        names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.cfg.n_layers)]
        names.append(END)
        # Tokens that all prompts begin with run once.
        shared = prefix.shared_start(tokens)
        shared = shared if shared * (len(tokens) - 1) >= prefix.WORTH else 0
        start, common = DynamicCache(), []
        if shared:
            common = _forward(model, tokens[:1, :shared], start, names)
        past = Prefix.of([start]) if shared else Prefix((), 0)
        streams, caches = [], []
        for chunk in tokens[:, shared:].split(size):
            none = torch.zeros(len(chunk), dtype=torch.long, device=tokens.device)
            caches.append(past.rows(none).cache())
            stream = _forward(model, chunk, caches[-1], names)
            for number, before in enumerate(common):
                stream[number] = torch.cat([before.expand(len(chunk), -1, -1), stream[number]], 1)
            streams.append(stream)
        stream = tuple(map(torch.cat, zip(*streams)))
        return cls(tokens, stream, Prefix.of(caches), ref(model))

    @property
    def ends(self) -> Float[Tensor, "prompt d_model"]:
        """The stream at the last token in front of ``ln_final``."""
        return self.stream[-1][:, -1]

    @checked
    def edited(
        self,
        model: TransformerBridge,
        layer: int,
        position: int,
        edit: Edit,
        rows: Int[Tensor, " row"] | Sequence[int] | None = None,
    ) -> Float[Tensor, "row d_model"]:
        """:attr:`ends` when the stream is edited in front of a layer at one position.

        Args:
            model: as it was in the run; hooks on it act on what is computed again.
            layer, position: where; negative positions count from the end.
            edit: the stream there, [row d_model], to its new value; gradients pass through it.
            rows: which prompts, also several times the same; all of them if not given.

        Raises:
            TypeError, ValueError: another model, or no such layer, position or row.
        """
        if self.of_model() is not model:
            raise ValueError(f"this is no run of this model, {model.cfg.model_name}.")
        n_pos, rows = self.tokens.shape[1], self._rows(rows)
        layer = whole("layer", layer, 0, model.cfg.n_layers)
        first = whole("position", position, -n_pos, n_pos) % n_pos
        x = self.stream[layer][rows, first:]
        x[:, 0] = apply(edit, x[:, 0])  # x is a copy
        with _entered(model, layer, x):
            cache = self.past.rows(rows, first).cache()
            return _forward(model, self.tokens[rows, first:], cache, [END])[0][:, -1]

    @torch.no_grad()
    @checked
    def steered(
        self,
        model: TransformerBridge,
        layer: int,
        position: int,
        vectors: Float[Tensor, "vector d_model"],
        rows: Int[Tensor, " row"] | Sequence[int] | None = None,
        *,
        batch_size: int = 64,
    ) -> Float[Tensor, "vector row d_model"]:
        """As :meth:`edited`, with every vector added to every prompt's stream."""
        rows, size = self._rows(rows), whole("batch_size", batch_size)
        vectors = checks.vectors("vectors", vectors, model.cfg.d_model)
        numbers = torch.arange(len(vectors), device=rows.device)
        ends = []
        for pairs in torch.cartesian_prod(numbers, rows).split(size):
            vector, row = pairs.to(self.tokens.device).unbind(1)
            ends.append(self.edited(model, layer, position, vectors[vector].__add__, row))
        return torch.cat(ends).unflatten(0, (len(vectors), len(rows)))

    @torch.no_grad()
    @checked
    def read(
        self,
        model: TransformerBridge,
        names: Sequence[str],
        position: int,
    ) -> list[Float[Tensor, "prompt ..."]]:
        """Activations at some hooks at one position; only what comes from there on runs again."""
        kept: dict[str, Tensor] = {}

        def keep(value: Tensor, hook, name: str) -> None:
            kept[name] = value[:, 0].clone()

        with hooked(model, [(name, partial(keep, name=name)) for name in names]):
            self.edited(model, 0, position, lambda x: x)
        return [kept[name] for name in names]

    def _rows(self, rows: Int[Tensor, " row"] | None) -> Int[Tensor, " row"]:
        return checks.rows(rows, len(self.tokens)).to(self.tokens.device)


def apply(edit: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What an edit makes of a stream.

    Raises:
        ValueError: it is no tensor, or has another shape.
    """
    after = edit(x)
    if not isinstance(after, Tensor) or after.shape != x.shape:
        raise ValueError(f"the edit must return a tensor of shape {tuple(x.shape)}.")
    return after


def _forward(
    model: TransformerBridge,
    tokens: Int[Tensor, "row pos"],
    cache: DynamicCache,
    names: Sequence[str],
) -> list[Float[Tensor, "row pos d_model"]]:
    """The stream at some hooks; logits are not computed, and ``cache`` gets keys and values."""
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook, name: str) -> None:
        kept[name] = value.clone()  # some models add to the stream in place

    with hooked(model, [(name, partial(keep, name=name)) for name in names]):
        model.original_model.base_model(input_ids=tokens, past_key_values=cache, use_cache=True)
    return [kept[name] for name in names]


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

    def leave() -> None:
        for block in before:
            block.__dict__.pop("forward", None)

    with hooked(model, [(f"blocks.{layer}.hook_resid_pre", lambda old, hook: x)]):
        try:
            try:
                for block in before:
                    block.__dict__["forward"] = skip  # shadows the class's method
                yield
            finally:
                leave()
        finally:
            leave()  # again, in case that an interrupt cut the first short
