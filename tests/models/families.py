"""Tiny random models of many families, in float64, and the table of them on the models page.

``python -m tests.models.families`` writes the table into book/models.md; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from helpers.models.formulas import facts
from helpers.models.load import freeze

PAGE = Path(__file__).parents[2] / "book" / "models.md"
BEGIN, END = "<!-- families: written by tests/models/families.py -->\n", "<!-- families: end -->\n"

VOCABULARY = {"vocab_size": 101, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
MHA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, **VOCABULARY}
MHA |= {"num_attention_heads": 4, "max_position_embeddings": 64}
GQA = MHA | {"num_key_value_heads": 2}
GPT = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 64, **VOCABULARY}
WIDE = GQA | {"head_dim": 8}
SLIDING = WIDE | {"sliding_window": 4}
GEMMA = SLIDING | {"query_pre_attn_scalar": 8}
# A mixture of experts: families name its sizes in several ways.
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "n_group": 1}
EXPERTS |= {"moe_intermediate_size": 24, "n_routed_experts": 4, "n_shared_experts": 1}
EXPERTS |= {"shared_expert_intermediate_size": 24, "first_k_dense_replace": 1, "topk_group": 1}
MULTIPLIERS = {"residual_multiplier": 0.22, "logits_scaling": 8.0, "embedding_multiplier": 12.0}
LOW_RANK = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
LOW_RANK |= {"v_head_dim": 8, "num_key_value_heads": 4}
GATED = WIDE | EXPERTS | {"layer_types": ["linear_attention", "full_attention"]}

# What the page calls it -> the model type in transformers, and the configuration.
FAMILIES = {
    "GPT-2": ("gpt2", GPT),
    "GPT-2, scores scaled by layer": ("gpt2", GPT | {"scale_attn_by_inverse_layer_idx": True}),
    "GPT-Neo": (
        "gpt_neo",
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64}
        | {"attention_types": [[["global", "local"], 1]], "window_size": 4, **VOCABULARY},
    ),
    "GPT-NeoX, Pythia": ("gpt_neox", MHA),
    "GPT-NeoX, sequential": ("gpt_neox", MHA | {"use_parallel_residual": False}),
    "GPT-J": ("gptj", GPT | {"rotary_dim": 4}),
    "CodeGen": ("codegen", GPT | {"rotary_dim": 4}),
    "GPT-BigCode": ("gpt_bigcode", GPT),
    "OPT": ("opt", MHA | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Bloom": ("bloom", GPT | {"hidden_size": 32}),
    "MPT": ("mpt", {"n_layers": 2, "n_heads": 4, "d_model": 32, "max_seq_len": 64, **VOCABULARY}),
    "Falcon 7B": ("falcon", MHA | {"multi_query": True, "parallel_attn": True, "alibi": False}),
    "Falcon RW": ("falcon", MHA | {"parallel_attn": False, "alibi": True, "bias": True}),
    "StableLM": ("stablelm", GQA | {"use_qkv_bias": True}),
    "StableLM, parallel": ("stablelm", GQA | {"use_parallel_residual": True}),
    "StableLM, normed queries": ("stablelm", GQA | {"qk_layernorm": True}),
    "StarCoder2": ("starcoder2", GQA),
    "Phi-2": ("phi", MHA),
    "Phi-3": ("phi3", GQA),
    "Llama": ("llama", GQA),
    "Llama with biases": ("llama", GQA | {"attention_bias": True, "mlp_bias": True}),
    "Llama 4, text": ("llama4_text", WIDE | EXPERTS | {"intermediate_size_mlp": 48}),
    "SmolLM3": ("smollm3", GQA),
    "Mistral": ("mistral", SLIDING),
    "Ministral 3": ("ministral3", WIDE),
    "Mixtral": ("mixtral", GQA | EXPERTS),
    "Qwen2": ("qwen2", GQA),
    "Qwen2 MoE": ("qwen2_moe", GQA | EXPERTS),
    "Qwen3": ("qwen3", WIDE),
    "Qwen3 MoE": ("qwen3_moe", WIDE | EXPERTS),
    "Gemma": ("gemma", WIDE),
    "Gemma 2": ("gemma2", GEMMA | {"final_logit_softcapping": 2.0}),
    "Gemma 2, capped scores": ("gemma2", GEMMA | {"attn_logit_softcapping": 1.0}),
    "Gemma 3": ("gemma3_text", GEMMA),
    "VaultGemma": ("vaultgemma", GEMMA),
    "OLMo": ("olmo", GQA),
    "OLMo 2": ("olmo2", GQA),
    "OLMo 3": ("olmo3", GQA | {"sliding_window": 4}),
    "OLMoE": ("olmoe", GQA | EXPERTS),
    "FlexOLMo": ("flex_olmo", GQA | EXPERTS),
    "Cohere": ("cohere", GQA | {"logit_scale": 0.0625}),
    "Cohere 2": ("cohere2", SLIDING | {"logit_scale": 0.25}),
    "Granite": ("granite", GQA | MULTIPLIERS),
    "Granite MoE": ("granitemoe", GQA | MULTIPLIERS | EXPERTS),
    "Nemotron": ("nemotron", WIDE),
    "EXAONE 4": ("exaone4", WIDE | {"layer_types": ["full_attention", "full_attention"]}),
    "GLM": ("glm", WIDE),
    "GLM-4": ("glm4", WIDE),
    "GLM-4 MoE": ("glm4_moe", WIDE | EXPERTS),
    "ERNIE 4.5": ("ernie4_5", WIDE),
    "ERNIE 4.5 MoE": (
        "ernie4_5_moe",
        WIDE | EXPERTS | {"moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1},
    ),
    "Seed-OSS": ("seed_oss", WIDE),
    "Arcee": ("arcee", GQA),
    "Apertus": ("apertus", GQA),
    "Hunyuan": ("hunyuan_v1_dense", WIDE),
    "gpt-oss": ("gpt_oss", SLIDING | EXPERTS),
    "Jais 2": ("jais2", WIDE),
    "MiniMax M2": ("minimax_m2", WIDE | EXPERTS),
    "nanochat": ("nanochat", GQA),
    "OLMo, clipped values": ("olmo", GQA | {"clip_qkv": 0.05}),
    "BitNet": ("bitnet", GQA),
    "DeepSeek V2": ("deepseek_v2", MHA | LOW_RANK | EXPERTS | {"topk_method": "greedy"}),
    "DeepSeek V3": ("deepseek_v3", MHA | LOW_RANK | EXPERTS),
    "GLM-4 MoE lite": ("glm4_moe_lite", MHA | LOW_RANK | EXPERTS),
    "Youtu": ("youtu", MHA | LOW_RANK),
    "Gemma 4": (
        "gemma4_text",
        WIDE
        | {"vocab_size_per_layer_input": 101, "hidden_size_per_layer_input": 8}
        | {"num_kv_shared_layers": 0, "global_head_dim": 8},
    ),
    "Qwen3-Next": ("qwen3_next", GATED),
    "AFMoE": ("afmoe", SLIDING | EXPERTS | {"num_dense_layers": 1, "layer_types": None}),
    "Falcon-H1": (
        "falcon_h1",
        GQA | {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64, "mamba_d_state": 8},
    ),
    "Bamba": (
        "bamba",
        GQA | {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16},
    ),
    "LFM2": ("lfm2", GQA | {"layer_types": ["full_attention", "conv"]}),
    "Jamba": ("jamba", GQA | EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1}),
    "Mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, **VOCABULARY}),
    "LFM2 MoE": (
        "lfm2_moe",
        GQA | EXPERTS | {"layer_types": ["full_attention", "conv"], "num_dense_layers": 1},
    ),
    "Qwen3.5": ("qwen3_5_text", GATED),
    "JetMoE": ("jetmoe", GQA | EXPERTS | {"kv_channels": 8}),
    "OpenAI GPT": ("openai-gpt", GPT),
    "OPT 350M": ("opt", MHA | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
}


def plain_family(name: str) -> PreTrainedModel:
    """A two-layer random model of a family; no bias or norm weight at its neutral value."""
    kind, values = FAMILIES[name]
    config = AutoConfig.for_model(kind, **values)
    config._attn_implementation = config._experts_implementation = "eager"
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config).double().eval()
    hf.config.architectures = [type(hf).__name__]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in hf.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.add_(0.1 * noise)
    return hf


def family(name: str, tokenizer) -> TransformerBridge:
    """The same behind a bridge, frozen."""
    boot = {
        "hf_model": plain_family(name),
        "tokenizer": tokenizer,
        "device": "cpu",
        "dtype": torch.float64,
    }
    return freeze(TransformerBridge.boot_transformers(f"tiny {name}", **boot))


def row(name: str, model: TransformerBridge) -> str:
    """A line of the page's table, from the self-check's findings."""
    found = facts(model)
    faults = set(found.faults)

    def cell(*needs: str) -> str:
        return "no" if faults & set(needs) else "yes"

    logits = cell("norms", "logits")
    if logits == "yes" and found.logit_cap is not None:
        logits = "gradient at given logits"
    heads = cell("norms", "values", "attention", "stream", "logits")
    mlps = cell("norms", "mlp", "stream", "logits")
    return f"| {name} | {logits} | {heads} | {mlps} |"


def table(rows: list[str]) -> str:
    """The page's table with its markers."""
    head = ["| Family | Observables | Heads, attribution, patching | MLPs in paths |"]
    return BEGIN + "\n".join([*head, "|---|---|---|---|", *rows]) + "\n" + END


if __name__ == "__main__":
    from tests.conftest import tiny_tokenizer

    with TemporaryDirectory() as folder:
        words = tiny_tokenizer(Path(folder))
        made = table([row(name, family(name, words)) for name in FAMILIES])
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + made + rest.partition(END)[2])
