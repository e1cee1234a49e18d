"""A task of the ruler on a random model of three layers: prompts of numbered words."""

from __future__ import annotations

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.models.load import freeze
from helpers.prompts.prompts import Prompts
from helpers.ruler.tasks import Ruled
from tests.conftest import ARCHITECTURES

LLAMA = "HuggingFaceTB/SmolLM2-135M-Instruct"


def three_layers(tokenizer) -> TransformerBridge:
    """A random Llama in float64, with weights large enough that edits swap answers."""
    config = LlamaConfig(**ARCHITECTURES[LLAMA][1].to_diff_dict() | {"num_hidden_layers": 3})
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    hf = LlamaForCausalLM(config).double().eval()
    hf.config.architectures = ["LlamaForCausalLM"]
    with torch.no_grad():
        for weight in hf.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, dtype=torch.float64))
    boot = {"hf_model": hf, "tokenizer": tokenizer, "device": "cpu", "dtype": torch.float64}
    return freeze(TransformerBridge.boot_transformers(LLAMA, **boot))


def some_prompts(model: TransformerBridge, numbers: list[int], end: str = "w1") -> Prompts:
    """A prompt for each number, of which no two have one pair of answers."""
    texts = [f"w{n} w{n + 1} {end}" for n in numbers]
    right, wrong = ([f"w{(base + n) % 90 + 5}" for n in numbers] for base in (11, 47))
    return Prompts.of(model, texts, right, wrong)


def small_task(model: TransformerBridge, seed: int = 0) -> Ruled:
    """Four training and six test prompts, three of these in another template."""
    draw = torch.Generator().manual_seed(1)
    texts = torch.randint(1, 101, (2, 18, 26), generator=draw)
    texts[:, :, 0] = 0
    train, test = some_prompts(model, [10, 20, 30, 40]), some_prompts(model, [*range(50, 56)])
    return Ruled(
        "small", seed, train, test, some_prompts(model, [50, 51, 52], "w2 w3"), texts[0], texts[1]
    )
