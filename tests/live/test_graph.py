"""The graphs' functions are the model: logits, scalars and gradients, in float64 and as ONNX."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import ActivScalar
from helpers.activation_scaling.points import Points
from helpers.models.run import last_logits
from live.graph import Shape, export, functions
from tests.conftest import random_model

pytestmark = pytest.mark.unit

SITES = ("attn_out", "mlp_out")
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture(scope="module")
def model(tokenizer) -> TransformerBridge:
    return random_model("HuggingFaceTB/SmolLM2-135M-Instruct", tokenizer)


def shape_of(model: TransformerBridge) -> Shape:
    config = model.original_model.config
    return Shape(
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        n_kv_heads=config.num_key_value_heads,
        d_model=config.hidden_size,
        d_head=config.hidden_size // config.num_attention_heads,
        d_mlp=config.intermediate_size,
        d_vocab=config.vocab_size,
        rope_base=config.rope_parameters["rope_theta"],
        eps=config.rms_norm_eps,
    )


def paired(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of a query or key matrix as a GGUF file has them: rotary pairs side by side."""
    return weight.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def weights_of(model: TransformerBridge, pair) -> list[dict[str, Tensor]]:
    """Each layer's weights under the graphs' names."""
    shape, state = shape_of(model), {}
    for name, value in model.original_model.state_dict().items():
        state[name.replace("_original_component.", "")] = value
    layers = []
    for layer in range(shape.n_layers):
        own = {}
        for name, theirs in NAMES.items():
            own[name] = state[f"model.layers.{layer}.{theirs}.weight"]
        own["attn_q"] = pair(own["attn_q"], shape.n_heads)
        own["attn_k"] = pair(own["attn_k"], shape.n_kv_heads)
        layers.append(own)
    return layers


def run(model: TransformerBridge, f, tokens: Tensor, alpha: Tensor, pair=paired):
    """Last-token logits, and their gradient [layer batch 2 pos] for the logit of token 3."""
    xs = [model.original_model.get_input_embeddings()(tokens)]
    layers, norm, table = weights_of(model, pair), model.ln_final.weight, model.W_U.mT
    for scales, weights in zip(alpha, layers):
        xs.append(f["layer"](xs[-1], scales, weights))
    logits = f["logits"](xs[-1][:, -1], norm, table)
    chosen = torch.zeros_like(logits)
    chosen[:, 3] = 1
    dy = torch.zeros_like(xs[-1])
    dy[:, -1] = f["logits_gradient"](xs[-1][:, -1], chosen, norm, table)
    gradients = []
    for x, scales, weights in reversed(list(zip(xs, alpha, layers))):
        dy, gradient = f["layer_gradient"](x, scales, dy, weights)
        gradients.append(gradient)
    return logits, torch.stack(gradients[::-1])


@pytest.fixture(scope="module")
def example(model: TransformerBridge) -> tuple[Tensor, ActivScalar, Tensor]:
    """Two prompts of five tokens, random scalars, and the same as the graphs take them."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 100, (2, 5), generator=generator)
    intervention = ActivScalar(Points.of(model, 5, sites=SITES), dtype=torch.float64)
    intervention.reset(seed=1, std=0.3)
    alpha = torch.stack([intervention.theta[site].detach() for site in SITES], 1)
    return tokens, intervention, alpha[:, None].expand(-1, 2, -1, -1)


def test_the_functions_give_the_logits_of_the_scaled_model(model, example) -> None:
    tokens, intervention, alpha = example
    with torch.no_grad(), intervention.applied(model):
        expected = last_logits(model, tokens)
    f = functions(shape_of(model))
    torch.testing.assert_close(run(model, f, tokens, alpha)[0], expected, rtol=0, atol=1e-5)
    # With rotary pairs left as the checkpoint has them, they are another model.
    other, _ = run(model, f, tokens, alpha, pair=lambda weight, n_heads: weight)
    assert (other - expected).abs().max() > 1e-3


def test_the_functions_give_the_gradient_by_the_scalars(model, example) -> None:
    tokens, intervention, alpha = example
    intervention.zero_grad()
    with intervention.applied(model):
        last_logits(model, tokens)[:, 3].sum().backward()
    expected = torch.stack([intervention.theta[site].grad for site in SITES], 1)
    _, found = run(model, functions(shape_of(model)), tokens, alpha)
    torch.testing.assert_close(found.sum(1), expected, rtol=1e-4, atol=1e-6)
    # Not at other scalars.
    _, elsewhere = run(model, functions(shape_of(model)), tokens, 0 * alpha)
    assert (elsewhere.sum(1) - expected).abs().max() > 1e-3


def test_the_exported_graphs_are_the_functions_for_any_batch_and_length() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra: make live")
    pytest.importorskip("onnxscript", reason="needs the extra: make live")
    shape = Shape(1, 4, 2, 32, 8, 48, 50, 10000.0, 1e-5)
    weights = {name: torch.randn(size) * 0.2 for name, size in shape.weights().items()}
    expected, graphs = functions(shape), export(shape)
    for batch, pos in ((1, 1), (3, 4)):
        x, dy = torch.randn(2, batch, pos, shape.d_model)
        alpha = torch.randn(batch, 2, pos)
        norm, table, rows = weights["attn_norm"], torch.randn(pos, 32), torch.randn(batch, pos)
        inputs = {
            "layer": {"x": x, "alpha": alpha, "weights": weights},
            "layer_gradient": {"x": x, "alpha": alpha, "dy": dy, "weights": weights},
            "logits": {"x": x[:, 0], "weight": norm, "table": table},
            "logits_gradient": {"x": x[:, 0], "dlogits": rows, "weight": norm, "table": table},
        }
        for name, given in inputs.items():
            flat = given | given.get("weights", {})
            flat.pop("weights", None)
            session = onnxruntime.InferenceSession(graphs[name])
            found = session.run(None, {key: value.numpy() for key, value in flat.items()})
            wanted = expected[name](*given.values())
            for one, other in zip(found, wanted if isinstance(wanted, tuple) else (wanted,)):
                torch.testing.assert_close(torch.from_numpy(one), other, rtol=1e-4, atol=1e-5)
