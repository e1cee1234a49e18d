"""The arithmetic floor: the floating-point operations of a fit, over the rate at which this machine multiplies matrices."""

from __future__ import annotations

import time
from itertools import cycle, islice

import torch
from transformer_lens.model_bridge import TransformerBridge

from helpers.models.load import device_of, kv_heads

OUT_OF_CACHE = 1 << 28  # bytes of weights that no cache holds
LARGE = 1024  # rows of a product that is as good as any


def forward_flops(model: TransformerBridge, rows: int, n_pos: int) -> float:
    """Operations of one forward run, with the unembedding at the last position only; see :func:`parts`."""
    attention, scores, mlp, unembedding = parts(model, rows, n_pos)
    return model.cfg.n_layers * (attention + scores + mlp) + unembedding


def backward_flops(model: TransformerBridge, rows: int, n_pos: int) -> float:
    """Operations of the gradient for interventions on attn_out and mlp_out of all layers: activations' alone, no weights'.

    A linear map costs as much as forward, a product of two activations twice as much. Nothing goes back through the
    first layer's attention (and its MLP, where both read the same), since no intervention lies before it.
    """
    attention, scores, mlp, unembedding = parts(model, rows, n_pos)
    layers = model.cfg.n_layers
    parallel = getattr(model.cfg, "parallel_attn_mlp", False)
    return (layers - 1) * (attention + 2 * scores) + (layers - parallel) * mlp + unembedding


def parts(model: TransformerBridge, rows: int, n_pos: int) -> tuple[float, float, float, float]:
    """Operations, forward, of a layer's linear maps of attention, its scores and averages, its MLP; of the unembedding.

    A multiplication and its addition count as two. Norms and other elementwise work are left out.
    """
    cfg, tokens = model.cfg, rows * n_pos
    heads = cfg.n_heads * cfg.d_head
    attention = 2 * tokens * cfg.d_model * (2 * heads + 2 * kv_heads(model) * cfg.d_head)
    scores = 2 * rows * n_pos**2 * 2 * heads
    mlp = 2 * tokens * cfg.d_model * cfg.d_mlp * (3 if cfg.gated_mlp else 2)
    return attention, scores, mlp, 2 * rows * cfg.d_model * cfg.d_vocab


def fit_flops(model: TransformerBridge, n_prompts: int, n_pos: int, steps: int) -> float:
    """Operations of a fit: the base run once, then in each step β = 1 and −1 forward and backward."""
    step = forward_flops(model, 2 * n_prompts, n_pos) + backward_flops(model, 2 * n_prompts, n_pos)
    return forward_flops(model, n_prompts, n_pos) + steps * step


def product_rates(
    model: TransformerBridge, rows: int, dtype: torch.dtype = torch.float32, *, repeats: int = 3
) -> dict[str, float]:
    """Operations a second of products with matrices of the model's shapes.

    Args:
        model: whose shapes.
        rows: of the activations that a step multiplies: prompts × β × positions.
        dtype: of the matrices.
        repeats: the fastest counts.

    Returns:
        ``cold``: these rows, and each weight read from memory, as a step reads it. ``hot``: many rows, and the same few
        weights again and again: the best the machine can do, which no step reaches.
    """
    cfg, device = model.cfg, device_of(model)
    shapes = [(cfg.d_model, cfg.d_mlp), (cfg.d_mlp, cfg.d_model), (cfg.d_model, cfg.d_model)]
    size = sum(a * b for a, b in shapes) * dtype.itemsize
    n_cold = len(shapes) * max(1, -(-OUT_OF_CACHE // size))
    weights = [
        torch.randn(shape, device=device, dtype=dtype) for shape in islice(cycle(shapes), n_cold)
    ]
    return {
        "cold": max(_rate(weights, rows) for _ in range(repeats)),
        "hot": max(_rate(weights[: len(shapes)] * 4, max(rows, LARGE)) for _ in range(repeats)),
    }


def _rate(weights: list[torch.Tensor], rows: int) -> float:
    inputs = {
        width: weights[0].new_ones(rows, width) for width in {len(weight) for weight in weights}
    }
    cuda = weights[0].is_cuda
    for _ in range(2 if cuda else 1):  # a GPU's first products choose their kernels
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for weight in weights:
            inputs[len(weight)] @ weight
        if cuda:
            torch.cuda.synchronize()
    return sum(2 * rows * weight.numel() for weight in weights) / (time.perf_counter() - start)
