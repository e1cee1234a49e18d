"""The model as four small ONNX graphs that take their weights as inputs.

One graph runs a layer of a Llama model with its activations scaled (Eq. 5, activation scaling), one
computes the gradient of that layer, one the logits from a residual stream, and one their gradient.
The page runs a layer's graph once for every layer, so it can edit the residual stream in between.

Weights have the layout of a GGUF file: [out, in], and rotary pairs of query and key side by side.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vjp
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import linear, silu

Stream = Float[Tensor, "batch pos d_model"]
Scales = Float[Tensor, "batch 2 pos"]


@dataclass(frozen=True)
class Shape:
    """What the graphs need to know about a Llama model besides its weights."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    rope_base: float
    eps: float

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a layer's weights, by their names in a GGUF file."""
        d, queries, keys = self.d_model, self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        return {
            "attn_norm": (d,),
            "attn_q": (queries, d),
            "attn_k": (keys, d),
            "attn_v": (keys, d),
            "attn_output": (d, queries),
            "ffn_norm": (d,),
            "ffn_gate": (self.d_mlp, d),
            "ffn_up": (self.d_mlp, d),
            "ffn_down": (d, self.d_mlp),
        }


def norm(x: Tensor, weight: Float[Tensor, " d_model"], eps: float) -> Tensor:
    """RMSNorm."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x: Float[Tensor, "batch pos head d_head"], base: float) -> Tensor:
    """Rotary position embedding of neighbouring pairs."""
    n_pos, d_head = x.shape[1], x.shape[-1]
    frequencies = base ** (-torch.arange(0, d_head, 2, dtype=x.dtype) / d_head)
    angles = torch.arange(n_pos).to(x.dtype)[:, None] * frequencies
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]  # [pos 1 d_head/2]
    even, odd = x.unflatten(-1, (d_head // 2, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def layer(shape: Shape, x: Stream, alpha: Scales, w: dict[str, Tensor]) -> Stream:
    """The residual stream after a layer; outputs of attention and MLP are scaled by 1 + alpha."""
    heads, kv = shape.n_heads, shape.n_kv_heads
    # Attention; consecutive query heads share a key/value head.
    h = norm(x, w["attn_norm"], shape.eps)
    q = rotate(linear(h, w["attn_q"]).unflatten(-1, (heads, shape.d_head)), shape.rope_base)
    k = rotate(linear(h, w["attn_k"]).unflatten(-1, (kv, shape.d_head)), shape.rope_base)
    v = linear(h, w["attn_v"]).unflatten(-1, (kv, shape.d_head))
    k, v = (one.repeat_interleave(heads // kv, dim=2).transpose(1, 2) for one in (k, v))
    scores = q.transpose(1, 2) @ k.mT * shape.d_head**-0.5  # [batch head query key]
    position = torch.arange(x.shape[1])
    future = position[None, :] > position[:, None]
    scores = scores.masked_fill(future, torch.finfo(x.dtype).min)
    z = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + linear(z, w["attn_output"]) * (1 + alpha[:, 0, :, None])
    # MLP.
    h = norm(x, w["ffn_norm"], shape.eps)
    mlp_out = linear(silu(linear(h, w["ffn_gate"])) * linear(h, w["ffn_up"]), w["ffn_down"])
    return x + mlp_out * (1 + alpha[:, 1, :, None])


def logits(
    shape: Shape,
    x: Float[Tensor, "n d_model"],
    weight: Float[Tensor, " d_model"],
    table: Float[Tensor, "token d_model"],
) -> Float[Tensor, "n token"]:
    """Logits of residual streams, for some rows of the unembedding; the final norm comes first."""
    return linear(norm(x, weight, shape.eps), table)


def functions(shape: Shape) -> dict[str, Callable]:
    """The four functions by the name of their graph."""

    def layer_gradient(x, alpha, dy, weights):
        return vjp(lambda x, alpha: layer(shape, x, alpha, weights), x, alpha)[1](dy)

    def logits_gradient(x, dlogits, weight, table):
        (dx,) = vjp(lambda x: logits(shape, x, weight, table), x)[1](dlogits)
        return dx

    return {
        "layer": partial(layer, shape),
        "layer_gradient": layer_gradient,
        "logits": partial(logits, shape),
        "logits_gradient": logits_gradient,
    }


def export(shape: Shape) -> dict[str, bytes]:
    """The ONNX graphs, by name; batch, positions and rows of the unembedding are of any number."""
    # Examples of the inputs, of which only the sizes matter, and the axes that vary. Each is an
    # object of its own: tracing takes one that comes twice for one input.
    x, alpha, rows = torch.randn(2, 5, shape.d_model), torch.randn(2, 2, 5), torch.randn(3, 7)
    weights = {name: torch.randn(size) for name, size in shape.weights().items()}
    weight, table = torch.randn(shape.d_model), torch.randn(7, shape.d_model)
    dy, vectors = torch.randn_like(x), torch.randn(3, shape.d_model)
    stream, scales = {0: "batch", 1: "pos"}, {0: "batch", 2: "pos"}
    of_layer = {"x": (x, stream), "alpha": (alpha, scales)}
    of_weights = {"weights": (weights, dict.fromkeys(weights))}
    of_logits = {"x": (vectors, {0: "n"})}
    of_table = {"weight": (weight, None), "table": (table, {0: "token"})}
    inputs = {
        "layer": of_layer | of_weights,
        "layer_gradient": of_layer | {"dy": (dy, stream)} | of_weights,
        "logits": of_logits | of_table,
        "logits_gradient": of_logits | {"dlogits": (rows, {0: "n", 1: "token"})} | of_table,
    }
    return {name: _onnx(f, inputs[name]) for name, f in functions(shape).items()}


def _onnx(f: Callable, inputs: dict[str, tuple]) -> bytes:
    """A function as an ONNX graph, from example and varying axes of each input."""
    examples = {name: example for name, (example, _) in inputs.items()}

    class Traced(nn.Module):
        # The exporter cannot take a gradient apart; traced by make_fx it is plain operations.
        def __init__(self):
            super().__init__()
            self.graph = make_fx(f, tracing_mode="symbolic")(*examples.values())

        def forward(self, inputs):
            return self.graph(*inputs.values())

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own code
        program = torch.onnx.export(
            Traced().eval(),
            (),
            kwargs={"inputs": examples},
            dynamic_shapes={"inputs": {name: axes for name, (_, axes) in inputs.items()}},
            input_names=_names(examples),
            dynamo=True,
            opset_version=20,
            verbose=False,
        )
    return program.model_proto.SerializeToString()


def _names(examples: dict) -> list[str]:
    """Names of the graph's inputs; weights by their own."""
    names = []
    for name, example in examples.items():
        names += list(example) if isinstance(example, dict) else [name]
    return names
